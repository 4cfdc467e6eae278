"""From a file and words to one checked tree."""

from pathlib import Path

import pytest

from cliptune.errors import ConfigError
from jobs.config import read


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(words)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> str:
    text = "search: {seed: 1, budget: 64, population: 8}\ncluster: {actors: 3}\n"
    return write(tmp_path / "a.yaml", text)


def test_no_words_are_the_embedded_example() -> None:
    config = read([])
    assert config.task.name == "tickets"
    assert config.model.name == "minilm"
    assert config.cluster.actors == "auto"


def test_a_file_is_laid_over_the_preset(file: str) -> None:
    config = read([file])
    assert (config.search.seed, config.search.budget, config.search.population) == (1, 64, 8)
    assert config.cluster.actors == 3
    assert config.model.name == "minilm"


def test_words_are_laid_over_the_file_wherever_they_stand(file: str) -> None:
    for words in ([file, "search.seed=2"], ["search.seed=2", file]):
        config = read(words)
        assert (config.search.seed, config.search.budget, config.cluster.actors) == (2, 64, 3)


def test_later_words_are_laid_over_earlier_ones(file: str) -> None:
    assert read([file, "search.seed=2", "search.seed=3"]).search.seed == 3


def test_words_choose_a_preset() -> None:
    config = read(["task.name=sst2", "task.data=/data"])
    assert "{mask}" in config.task.template
    assert config.task.data == "/data"


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read([write(tmp_path / "a.yaml", "# nothing\n")]) == read([])


@pytest.mark.parametrize(
    ("word", "section", "setting", "value"),
    [
        ("run_dir=runs/a=b", None, "run_dir", "runs/a=b"),
        ("run_dir=null", None, "run_dir", None),
        ("run_dir=", None, "run_dir", None),
        ("search.sigma=0.5", "search", "sigma", 0.5),
        ("search.method=random", "search", "method", "random"),
        ("ensemble.sites=[ffn-hidden]", "ensemble", "sites", ("ffn-hidden",)),
        ("task.template={text} : {mask}", "task", "template", "{text} : {mask}"),
        ("task.label_words=[ä, ß, c, d, e, f, g]", "task", "label_words", tuple("äßcdefg")),
        ("cluster.address=127.0.0.1:6379", "cluster", "address", "127.0.0.1:6379"),
    ],
)
def test_words_are_yaml_values(word: str, section: str | None, setting: str, value: object) -> None:
    config = read([word])
    assert getattr(getattr(config, section) if section else config, setting) == value


def test_a_word_that_is_not_yaml_is_taken_as_text() -> None:
    assert read(["task.template={text} says: it is {mask}"]).task.template == (
        "{text} says: it is {mask}"
    )


@pytest.mark.parametrize(
    "text", ["2024-11-05", "2024-13-45", "0x", "12:99:99 2024-01-01", "2024", "off", "Yes"]
)
def test_dates_numbers_and_words_are_texts_where_a_text_is_expected(text: str) -> None:
    assert read([f"run_dir={text}"]).run_dir == text


def test_yes_and_no_are_label_words() -> None:
    assert read(["task.name=rte", "task.label_words=[Yes, No]"]).task.label_words == ("Yes", "No")


def test_a_file_that_is_not_there_is_named() -> None:
    assert refusal("nothing.yaml") == "nothing.yaml cannot be read: No such file or directory."


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"{tmp_path} cannot be read: Is a directory."


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("task: {name: tïckets}", encoding="latin-1")
    assert refusal(str(path)) == f"{path} is not UTF-8 text; expected a YAML file."


@pytest.mark.parametrize("text", ["search: [1, 2", "search: {seed: 1", "a: b: c", "\tsearch: 1"])
def test_a_broken_file_is_refused_on_one_line_that_says_where(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", text)
    message = refusal(path)
    assert message.startswith(f"{path} is not YAML: ")
    assert "line 1" in message
    assert len(message.splitlines()) == 1


def test_a_date_in_a_file_is_a_text(tmp_path: Path) -> None:
    assert read([write(tmp_path / "a.yaml", "run_dir: 2024-13-45\n")]).run_dir == "2024-13-45"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system"])
def test_a_file_cannot_name_code_to_run(tag: str, tmp_path: Path) -> None:
    assert "is not YAML" in refusal(write(tmp_path / "a.yaml", f"run_dir: {tag}\n"))


@pytest.mark.parametrize("text", ["- task\n- search\n", "just words\n", "3\n", "false\n", "''\n"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", text)
    assert refusal(path).startswith(f"{path} must hold sections such as task: and search:; found ")


@pytest.mark.parametrize("word", ["=1", ".seed=1", "search.=1", "search..seed=1", "==", "."])
def test_a_word_without_a_whole_setting_is_refused(word: str) -> None:
    message = refusal(word) if "=" in word else refusal(f"{word}=1")
    assert message.startswith("Expected section.setting=value, e.g. search.seed=1; found ")


def test_two_files_are_one_too_many(file: str) -> None:
    message = refusal(file, "b.yaml", "search.seed=1")
    assert message == (f"One CONFIG.yaml at most, then key=value words; found {file} and b.yaml.")


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("search.sede=1", "search.seed"),
        ("serach.seed=1", "search"),
        ("cluster.actor=1", "cluster.actors"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest(word: str, nearest: str) -> None:
    message = refusal(word)
    assert message.startswith("Unknown setting ")
    assert f"(did you mean {nearest}?)" in message


def test_a_section_of_numbers_is_refused(tmp_path: Path) -> None:
    assert "Unknown setting 1" in refusal("1=2")
    assert "Keys should be strings, found 1" in refusal(write(tmp_path / "a.yaml", "1: 2\n"))


@pytest.mark.parametrize("word", ["search=3", "cluster=auto", "task=[tickets]"])
def test_a_section_must_hold_settings(word: str) -> None:
    section, _, value = word.partition("=")
    message = refusal(word)
    assert message.startswith(f"{section}: ")
    assert value.strip("[]") in message


def test_a_section_can_be_a_word() -> None:
    config = read(["search={seed: 4, budget: 32}"])
    assert (config.search.seed, config.search.budget) == (4, 32)


def test_all_that_is_wrong_is_said_at_once() -> None:
    lines = refusal("search.budget=0", "prompt.length=no", "cluster.failures=-1").splitlines()
    starts = [line.partition(":")[0] for line in lines]
    assert sorted(starts) == ["cluster.failures", "prompt.length", "search.budget"]


@pytest.mark.parametrize(
    "text", ["0012", "1_000", "12:30", "0x10", "1.10", "{text}", "a # b", "10"]
)
def test_a_text_is_taken_as_it_stands(text: str) -> None:
    assert read([f"run_dir={text}"]).run_dir == text


@pytest.mark.parametrize("text", ["0012", "1_000", "12:30", "0x10"])
def test_what_looks_little_like_a_number_is_a_text_in_a_file(text: str, tmp_path: Path) -> None:
    assert read([write(tmp_path / "a.yaml", f"run_dir: {text}")]).run_dir == text


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2", 2.0), (".5", 0.5), ("1.5e2", 150.0)]
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert read([f"search.sigma={text}"]).search.sigma == value


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    said = refusal(
        write(tmp_path / "a.yaml", "search: {seed: 1}\ntask: {k: 3}\nsearch: {seed: 2}\n")
    )
    assert "search stands there twice, again in line " in said
    assert "line 3" in said


def test_the_home_folder_may_be_a_tilde() -> None:
    home = Path.home()
    config = read(["run_dir=~/run", "task.data=~/data", "model.name=~/model"])
    assert (config.run_dir, config.task.data, config.model.name) == (
        f"{home}/run",
        f"{home}/data",
        f"{home}/model",
    )


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "{[a]: 1}", "? {a: 1}\n: 2\n"])
def test_a_key_that_is_no_word_is_refused(text: str, tmp_path: Path) -> None:
    assert "a key must be one word" in refusal(write(tmp_path / "a.yaml", text))


@pytest.mark.parametrize(
    "tag", ["map", "set", "omap", "pairs", "timestamp", "binary", "int", "float"]
)
def test_a_value_that_is_not_what_its_tag_says_is_refused(tag: str, tmp_path: Path) -> None:
    assert "a.yaml" in refusal(write(tmp_path / "a.yaml", f"search: !!{tag} xy\n"))
