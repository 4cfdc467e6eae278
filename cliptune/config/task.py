"""The settings of a task: its examples, and how they are put into words."""

from typing import Any, Literal, Self

from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator

from cliptune.config.fields import Count, Place, Section, Seed


class SplitNames(Section):
    """Splits or files that the examples come from; those drawn from the same one never overlap."""

    train: str | None = Field(None, description="train if null")
    validation: str | None = Field(
        None, description="validation, valid, dev or val if null; else drawn from train's"
    )
    test: str | None = Field(None, description="test if null; what is left of a single file")


class ColumnNames(Section):
    """What the examples' columns are called."""

    text: str = Field("text", description="the sentence")
    text_pair: str = Field("text_pair", description="the second sentence, of pair tasks")
    label: str = Field("label", description="the class")


class TaskConfig(Section):
    """What is to be classified, and how it is put into words."""

    name: str = Field(
        "tickets", pattern=r"^\w[\w.-]*$", description="a preset's name, or a name of your own"
    )
    data: Place | None = Field(
        None, description="a folder or file of examples, or the name of a dataset on the hub"
    )
    subset: str | None = Field(None, description="of a hub dataset that has several")
    splits: SplitNames = Field(default_factory=SplitNames)
    columns: ColumnNames = Field(default_factory=ColumnNames)
    labels: tuple[StrictInt | StrictStr, ...] | None = Field(
        None, description="values of the label column in the label words' order; 0, 1, ... if null"
    )
    template: str = Field(description="how a text is presented: {text}, {text_pair}, {mask}")
    label_words: tuple[str, ...] = Field(min_length=2, description="one a class, in label order")
    verbalizer: tuple[tuple[str, ...], ...] | None = Field(
        None,
        description="several words a class, in label order: the mean of their scores is its own, "
        "and its label word a name only; read from the label word if null",
    )
    label_tokens: Literal["single", "first"] = Field(
        "single", description="first: of a label word that is several tokens, the first one counts"
    )
    k: Count | Literal["all"] = Field(
        16, description="examples a class for training, and again for validation"
    )
    seed: Seed = Field(0, description="draws the k examples where the files hold more")
    max_tokens: Count | None = Field(
        None, description="longest input with its prompt; the model's own limit if null"
    )

    @field_validator("labels", "label_words", "verbalizer", mode="before")
    @classmethod
    def _yes_and_no_are_quoted(cls, values: Any) -> Any:
        parts = values if isinstance(values, list) else []
        each = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        if any(isinstance(one, bool) for one in each):
            raise ValueError(f"YAML reads yes and no as true and false: quote them; found {values}")
        return values

    @model_validator(mode="after")
    def _labels_stand_for_the_words(self) -> Self:
        if len(set(self.label_words)) < len(self.label_words):
            raise ValueError(f"label_words must differ; found {', '.join(self.label_words)}")
        labels = self.label_words if self.labels is None else self.labels
        if len(set(map(str, labels))) < len(labels) or len(labels) != len(self.label_words):
            raise ValueError(
                f"labels must be {len(self.label_words)} different values, one a label word; "
                f"found {', '.join(map(str, labels))}"
            )
        return self

    @model_validator(mode="after")
    def _verbalizer_has_words_of_each_class(self) -> Self:
        if self.verbalizer is None:
            return self
        words = [word for each in self.verbalizer for word in each]
        if len(self.verbalizer) != len(self.label_words) or not all(self.verbalizer):
            raise ValueError(
                f"verbalizer must hold a list of words for each of the {len(self.label_words)} "
                f"label words; found {len(self.verbalizer)} lists of "
                f"{', '.join(str(len(each)) for each in self.verbalizer)} words"
            )
        if twice := sorted(word for word in set(words) if words.count(word) > 1):
            raise ValueError(f"verbalizer's words must differ; found {twice[0]!r} twice")
        return self
