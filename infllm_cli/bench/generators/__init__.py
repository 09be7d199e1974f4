"""Generators: contexts of any length, made from a seed, with what is asked of them."""

from infllm.cli.bench.generators.babi import Babi
from infllm.cli.bench.generators.base import Generator
from infllm.cli.bench.generators.counting import CommonWords, FrequentWords
from infllm.cli.bench.generators.fitting import generate
from infllm.cli.bench.generators.needles import Needles
from infllm.cli.bench.generators.passages import Passages
from infllm.cli.bench.generators.records import KeyValue, NumberList, PrefixSuffix
from infllm.cli.bench.generators.variables import Variables

GENERATORS: dict[str, type[Generator]] = {
    "needles": Needles,
    "variables": Variables,
    "common_words": CommonWords,
    "frequent_words": FrequentWords,
    "passages": Passages,
    "key_value": KeyValue,
    "number_list": NumberList,
    "prefix_suffix": PrefixSuffix,
    "babi": Babi,
}

__all__ = ["GENERATORS", "Generator", "generate"]
