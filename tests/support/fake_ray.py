"""A Ray without processes or time: who answers when, and what goes wrong, is the test's to say.

Actors are plain objects in this process. Whatever they are asked for is answered at the next look,
unless `held` says otherwise; a look takes a while of a clock that nobody waits for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray.exceptions import ActorDiedError

from cliptune.config import Config, validate
from cliptune.observer import Observer
from cliptune.task import load_task
from cluster.actor import Place, ScoringActor
from cluster.config import ClusterSearch
from cluster.pool import ActorPool


class Ref:
    """What was asked for."""

    def __init__(self, actor: "Actor", method: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.method, self.arguments = actor, method, arguments
        self.done = False
        self.value: Any = None


class Actor:
    """An actor and its handle at once, on a machine of its own."""

    def __init__(self, world: "FakeRay", number: int, body: Any) -> None:
        self.number, self.body, self.killed = number, body, False
        self.node = f"node-{number}"
        self._world = world

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Ref:
            ref = Ref(self, method, arguments)
            self._world.refs.append(ref)
            return ref

        return type("Method", (), {"remote": staticmethod(remote)})


class FakeRay:
    """Stands where `ray`, `time` and `nodes` are used."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.refs: list[Ref] = []
        self.drained: set[str] = set()
        self.now = 0.0
        self.looks = 0
        self.room = 1_000  # actors that have a place at once
        self.held: Callable[[Ref], bool] = lambda ref: False
        self.wrong: Callable[[Ref], Exception | None] = lambda ref: None
        self.script: Callable[[], None] = lambda: None

    # As `ray` has them

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Any:
        def decorate(body: type[ScoringActor]) -> Any:
            def start() -> Actor:
                actor = Actor(self, len(self.actors), body())
                self.actors.append(actor)
                return actor

            made = {"remote": staticmethod(start)}
            made["options"] = staticmethod(lambda **more: type("Class", (), made))
            return type("Class", (), made)

        return decorate

    def wait(
        self, refs: Sequence[Ref], num_returns: int, timeout: float
    ) -> tuple[list[Ref], list[Ref]]:
        if timeout:
            self.looks += 1
            assert self.looks < 2_000, "it goes on for ever"
            self.script()
            for ref in [ref for ref in refs if not ref.done]:
                self._answer(ref)
            if not any(ref.done for ref in refs):
                self.now += timeout
        done = [ref for ref in refs if ref.done][:num_returns]
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref: Ref, timeout: float) -> Any:
        assert ref.done
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value

    def kill(self, actor: Actor) -> None:
        actor.killed = True

    def available_resources(self) -> dict[str, float]:
        return {}

    # As `time` and `nodes` have them

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        assert self.looks < 2_000, "it goes on for ever"
        self.script()
        self.now += seconds

    def draining(self) -> set[str]:
        return self.drained

    def alive(self) -> set[str]:
        return {actor.node for actor in self.actors}

    def reserved(self) -> None:
        return None

    # For the tests

    @property
    def living(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.killed]

    def _answer(self, ref: Ref) -> None:
        actor = ref.actor
        if actor.killed:
            ref.value, ref.done = ActorDiedError(), True
        elif error := self.wrong(ref):
            ref.value, ref.done = error, True
        elif ref.method == "hello" and self.living.index(actor) >= self.room:
            return
        elif not self.held(ref):
            ref.value, ref.done = self._result(ref), True

    def _result(self, ref: Ref) -> Any:
        if ref.method == "hello":
            return Place(ref.actor.node, f"host-{ref.actor.number}", 1_000 + ref.actor.number)
        try:
            return getattr(ref.actor.body, ref.method)(*ref.arguments)
        except Exception as error:
            return error


@contextmanager
def fake_ray() -> Iterator[FakeRay]:
    world = FakeRay()
    with (
        patch("cluster.fleet.ray", world),
        patch("cluster.worker.ray", world),
        patch("cluster.pool.ray", world),
        patch("cluster.fleet.time", world),
        patch("cluster.pool.time", world),
        patch("cluster.fleet.nodes", world),
        patch("cluster.worker.nodes", world),
    ):
        yield world


def pool_of(
    config: Config, actors: Any, actor: type[ScoringActor], observer: Observer, **cluster: Any
) -> ActorPool:
    tree = {"actors": actors, "gpus_per_actor": 0, **cluster}
    made = validate(ClusterSearch, {**config.model_dump(mode="json"), "cluster": tree})
    return ActorPool(made, load_task(config.task), observer, actor)
