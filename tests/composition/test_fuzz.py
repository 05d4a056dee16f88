"""Every text is a composition or gets diagnostics, in time that grows with its length.

`make test` tries a few thousand texts with the seed of the day; `make soak` tries 200,000 on the
parser and 20,000 on the checker, and prints a summary of the outcomes.
"""

from __future__ import annotations

import json
import random
import sys
import time
import timeit
from collections.abc import Callable

import pytest
from lark.exceptions import UnexpectedInput

import adaptcompose as ac
from adaptcompose.composition import size_limits
from adaptcompose.diagnostics.codes import CODES
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source, render
from adaptcompose.syntax import parser
from adaptcompose.syntax.error_recovery import ERROR_LIMIT, find_syntax_errors
from adaptcompose.syntax.parser import parse_tree
from tests.composition.test_syntax import ACCEPTED, REJECTED
from tests.sampling import AGAIN, SEED, SOAK, TRIED, daily

pytestmark = pytest.mark.soak
MORE = 50 if SOAK else 1

PIECES = ["stack", "fuse(", "(", ")", "[", "]", ",", "|", ":", "=", ";", "!", "let ", "let x = "]
PIECES += ["a", "lang/sw", "user/repo@main", "glue/*", "k=", "0.3", "5", "0..4", "'s'", '"t"']
PIECES += ["# c\n", " ", "\n", "\r\n", "Lang", "STACK", "@", "{", "}", "{a,b}", "/", ".5", "5."]
PIECES += ["$", "'", "\\", "average(a:0.3)", "drop(bottom=5)", "\0", "\ud800", "é", "\u200f"]
PIECES += ["https://x.y/z", "hf://a/b", "c:\\d", "+5", "-", "~", "?", "x" * 60, "!5", "1e999"]
PIECES += [
    "true",
    "false",
    "0...4",
    "none",
    "lang=sw",
    "swap(lang=en)",
    "../",
    "@refs/pr/3",
    "\x1b[",
]
NOISE = [chr(n) for n in range(32, 127)] + list(
    "\0\t\n\r\x85\xa0éß\u0301語\u2028\u202e\ufeff😀\ud800"
)


def assembled(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 9)))


def mutated(rng: random.Random) -> str:
    """A fixture in which up to three places are cut, doubled or filled with something else."""
    text = rng.choice(rng.choice([ACCEPTED, REJECTED]))[0]
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        other = rng.choice([rng.choice(PIECES), text[place : place + 9], ""])
        text = text[:place] + other + text[place + rng.randint(0, 1) :]
    return text


def spliced(rng: random.Random) -> str:
    """The beginning of one fixture and the end of another."""
    first, second = rng.choice(ACCEPTED)[0], rng.choice(REJECTED)[0]
    return first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :]


def noisy(rng: random.Random) -> str:
    return "".join(rng.choices(NOISE, k=rng.randint(0, 40)))


def nested(rng: random.Random) -> str:
    """Brackets and texts in each other, most of them closed."""
    opened = "".join(rng.choices(["f(", "(", "[", "x=(", "a, f("], k=rng.randint(1, 90)))
    closed = "".join(rng.choices([")", "]", ")", ")|a"], k=rng.randint(0, 90)))
    return f"{opened}a{closed}"


KINDS = [assembled, assembled, mutated, mutated, mutated, spliced, noisy, nested]


def texts(count: int) -> list[tuple[int, str]]:
    """Random texts, each with the number that makes it again."""
    found = []
    for number in range(count):
        rng = random.Random(f"{SEED} {number}")
        found.append((number, rng.choice(KINDS)(rng)))
    return found


def outcome(text: str) -> str:
    """`fine`, or the first code; nothing else may happen to any text."""
    source = Source(text)
    try:
        tree = parse_tree(source)
    except Failed as failed:
        assert failed.diagnostics
        hold(failed.diagnostics, source)
        return failed.diagnostics[0].code
    canonical = str(tree)
    if len(canonical) <= parser.SIZE_LIMIT:  # the blanks of canonical text count too
        assert parse_tree(canonical) == tree
        assert str(parse_tree(canonical)) == canonical
    return "fine"


def hold(diagnostics: tuple[Diagnostic, ...], source: Source) -> None:
    """What every list of diagnostics promises."""
    assert [one.position() for one in diagnostics] == sorted(one.position() for one in diagnostics)
    for one in diagnostics:
        assert one.code in CODES
        if one.span is not None:
            assert 0 <= one.span.start <= one.span.end <= len(source.text)
        assert all(line.isprintable() or "\t" in line for line in str(one).split("\n"))
    form = json.loads(render(diagnostics, "json"))
    assert [entry["code"] for entry in form] == [one.code for one in diagnostics]
    assert render(diagnostics, "github").count("\n") == max(0, len(diagnostics) - 1)


def grammar_takes(text: str) -> bool:
    try:
        parser.load_parser().parse(text)
    except UnexpectedInput:
        return False
    return True


def test_any_text_is_a_tree_or_explained() -> None:
    """The parser, the reader that explains and the grammar agree on every text."""
    for number, text in texts(4000 * MORE):
        try:
            result = outcome(text)
            TRIED[result] += 1
            deep = result == "AC902"
            assert bool(find_syntax_errors(Source(text))) == (result != "fine") or deep
            assert result != "fine" or grammar_takes(text)
        except Exception as error:
            raise AssertionError(f"{AGAIN}, text {number}: {text!r}") from error
    assert min(TRIED["fine"], TRIED.total() - TRIED["fine"]) > 300 * MORE
    assert len(TRIED) >= 15


def test_any_composition_is_a_graph_or_explained() -> None:
    """What parses is checked, against the catalogue and without: never anything but diagnostics."""
    for number, text in texts(400 * MORE):
        try:
            found = tuple(ac.check(text))
            hold(found, Source(text))
            TRIED[found[0].code if found else "fine"] += 1
        except Exception as error:
            raise AssertionError(f"{AGAIN}, text {number}: {text!r}") from error
    assert len(TRIED) >= 15


UNITS = ["a|", "a,", "k=5:0.5,", "f()|", "$", "$%", "a@", "(", "f(", ")", "{", "a{", '"', '"\\']
UNITS += ["a ", "#\n", "a#\n", "a =", "let x = a; ", "let ", "1", ".", "a/", "/", "\0", " ", ";"]
UNITS += ["a:", "[", "!", "(a)|", "f(a,", "(a|", "http://", "c:\\", "1.", "0..", "é", "'\n", "a{b}"]


def shapes(unit: str, size: int) -> tuple[str, ...]:
    count = size // len(unit)
    return (unit * count, f"f({unit * (count - 2)})", f"{unit * count}a"[:size])


def steps(text: str) -> int:
    """How many calls, of Python and of C, reading a text takes."""
    count = 0

    def step(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        parse_tree(text)
    except Failed:
        pass
    finally:
        sys.setprofile(before)
    return count


@daily("unit", UNITS)
def test_steps_grow_with_the_length(unit: str) -> None:
    outcome(unit)  # the grammar is read, whatever test comes first
    size = 8192 if SOAK else 2048
    for small, large in zip(shapes(unit, size), shapes(unit, 4 * size), strict=True):
        assert steps(large) <= 4 * 1.3 * steps(small) + 500


def fastest(work: Callable[[], object]) -> float:
    """Processor time: neither what else this machine does nor what other tests have left counts."""
    return min(timeit.repeat(work, number=1, repeat=3, timer=time.process_time))


@pytest.mark.skipif(not SOAK, reason="time is measured while soaking")
@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_the_length(unit: str) -> None:
    """What goes on inside of one call, such as a search, is no step; so the clock, generously."""
    for small, large in zip(shapes(unit, 8192), shapes(unit, 65_536), strict=True):
        few, many = fastest(lambda t=small: outcome(t)), fastest(lambda t=large: outcome(t))  # type: ignore[misc]
        assert many <= 8 * 4 * max(few, 0.002)


@daily("unit", UNITS)
def test_long_texts_get_an_answer(unit: str) -> None:
    found = shapes(unit, parser.SIZE_LIMIT)
    for text in found if SOAK else [found[SEED % len(found)]]:
        outcome(text)
        assert outcome(text * 2) == "AC901"


LARGE = {
    "unknown names": "stack(" + "a," * 20_000 + "b)",
    "unknown operators": "stack(" + "foo()," * 9_000 + "a)",
    "wrong arguments": "stack(lang=sw) | drop(" + "botom=1," * 7_000 + ")",
    "unused lets": "".join(f"let a{n} = lang/sw; " for n in range(2_500)) + "lang/sw",
    "unused lets, then an error": "".join(f"let a{n} = lang/sw; " for n in range(2_000)) + "foo()",
    "a long stack": "stack(" + "lang/sw," * 7_000 + "lang/en)",
    "many patterns": "fuse(" + "glue/*," * 8_000 + "glue/rte)",
    "one long pattern": "fuse(glue/" + "*?" * 30_000 + ")",
    "a long choice": "fuse(glue/{" + ",".join(f"a{n}" for n in range(9_000)) + "})",
    "many exclusions": "fuse(glue/*," + "!glue/a*," * 7_000 + ")",
    "many modifiers": "stack(lang=sw)" + " | drop(bottom=1)" * 3_800,
    "many swaps": "stack(lang=sw)" + " | swap(lang=en)" * 3_800,
    "swaps that double": "stack(lang=sw)" + " | swap(lang=stack(lang=sw, p=stack(lang=sw)))" * 900,
    "lets that double": "let a0 = stack(lang/sw, lang/en); "
    + "".join(f"let a{n} = stack(a{n - 1}, a{n - 1}); " for n in range(1, 60))
    + "a59",
    "lets that nest": "let a0 = lang/sw; "
    + "".join(f"let a{n} = stack(x=a{n - 1}); " for n in range(1, 1_500))
    + "a1499",
    "all layers again and again": "lang/sw | drop(layers=[" + "0..999," * 7_000 + "1])",
}


@daily("name", list(LARGE), days=4)
def test_large_compositions_get_an_answer(name: str) -> None:
    """As long as the limit allows: an answer, of at most a hundred messages, and no exception."""
    found = ac.check(LARGE[name])
    assert len(found) <= size_limits.MESSAGE_LIMIT + 1
    assert len("\n".join(map(str, found))) < 100_000
    if len(found) > size_limits.MESSAGE_LIMIT:
        assert found[-1].code == "AC905"


def test_an_error_after_many_warnings_is_reported() -> None:
    (found, more) = ac.check(LARGE["unused lets, then an error"])
    assert (found.code, more.code) == ("AC101", "AC905")
    assert more.message == "2,000 more problems not shown"


def test_too_long_and_too_deep() -> None:
    deep = parser.DEPTH_LIMIT
    assert outcome("a" * parser.SIZE_LIMIT) == "fine"
    assert outcome("a" * (parser.SIZE_LIMIT + 1)) == "AC901"
    assert outcome("a|" * 50_000 + "a") == "AC901"
    assert outcome("f(" * deep + "a" + ")" * deep) == "fine"
    assert outcome("f(" * (deep + 1) + "a" + ")" * (deep + 1)) == "AC902"
    assert outcome("f(" * 2000 + "a" + ")" * 2000) == "AC902"
    assert outcome("(" * 2000) == "AC902"
    assert outcome('"' + "(" * 2000 + '"') == "fine"
    assert outcome("a # " + "(" * 2000) == "fine"


def test_reading_a_long_text_takes_little_memory() -> None:
    import tracemalloc

    text = "stack(" + "a," * 32_000 + "b)"
    parse_tree("a")
    tracemalloc.start()
    try:
        parse_tree(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000 * len(text)


def test_the_number_of_reported_mistakes_is_limited() -> None:
    assert len(find_syntax_errors(Source("$ a, " * 1000))) == ERROR_LIMIT
