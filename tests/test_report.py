"""The report without a browser: the stored form and the page's text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from noiseaudit import suspects_presentation
from noiseaudit.auditing import audit
from noiseaudit.errors import OutputError
from noiseaudit.loaders import load
from noiseaudit.report import (
    ClassSummary,
    Copy,
    CopyGroup,
    EpochSummary,
    Histogram,
    Neighbour,
    PairSummary,
    ReportDocument,
    Suspect,
    VerdictSummary,
    document_from_dict,
    document_to_dict,
    render,
    write_report,
)

PNG = (  # 1 x 1
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQ"
    "AAAABJRU5ErkJggg=="
)
TRICKY_NAMES = (
    "<script>window.pwned=1</script>",
    "\"double\" and 'single'",
    "{{ 7 * 7 }}{% raw %}",
    "emoji \U0001f408\u200d\u2b1b",
    "two\nlines",
    "\u202eright to left \u05e2\u05d1\u05e8\u05d9\u05ea",
    "a/b\\c, d",
    "</style><img src=x onerror=alert(1)>",
    "-->",
)


class Page(HTMLParser):
    """Elements with their attributes, and the text inside each script and style."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.raw if self.lasttag in ("script", "style") else self.words).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def texts(self):
        return " ".join(" ".join(self.words).split())


def suspect(rank=1, given="cat", suggested="dog", **changes):
    values = {
        "rank": rank,
        "sample_id": 100 + rank,
        "source": f"train/{rank}.png",
        "given_label": given,
        "suggested_label": suggested,
        "suspicion": 3.5 / rank,
        "is_label_issue": True,
        "reason": f"Never learned as {given}.",
    }
    return Suspect(**(values | changes))


def document(**changes):
    values = {
        "title": "pets",
        "headline": "2 of 10 labels look wrong.",
        "detector": "cumulative_loss",
        "examples": 10,
        "issues": 2,
    }
    return ReportDocument(**(values | changes))


def full_document():
    return document(
        facts=(("Source", "/data/pets"),),
        notes=("1 picture was skipped.",),
        classes=(ClassSummary("cat", 6, 1), ClassSummary("dog", 4, 1)),
        pairs=(PairSummary("cat", "dog", 1), PairSummary("dog", "cat", 1)),
        suspects=(
            suspect(split="train", thumbnail=PNG, curve=(0.1, None, 0.25), scores=(("el2n", 0.5),)),
            suspect(
                2,
                "dog",
                "",
                features=(("width", -2.5), ("height", None)),
                neighbours=(Neighbour(7, "cat", PNG), Neighbour(8, "dog")),
            ),
        ),
        histograms=(Histogram("Loss", "cumulative_loss", (0.0, 1.0, 2.0), (8, 2), (0, 2)),),
        training=(EpochSummary(1, 2.0, 0.5), EpochSummary(2, 1.0, None)),
        settings=(("seed", "0"),),
        version="0.1.0",
    )


def test_neighbours_are_evidence_with_pictures_where_they_have_one():
    text = render(full_document())
    assert 'class="other" title="id 7, labelled cat"><img' in text
    assert 'title="id 8, labelled dog"><bdi>dog</bdi>' in text


# Stored form


def test_round_trip_through_json_gives_an_equal_document():
    stored = json.dumps(document_to_dict(full_document()), allow_nan=False)
    assert document_from_dict(json.loads(stored)) == full_document()


def test_what_json_in_utf8_cannot_hold_is_replaced():
    odd = document(
        title="lone \udc80 surrogate",
        suspects=(suspect(curve=(math.nan, 0.5), suspicion=math.inf),),
    )
    stored = document_to_dict(odd)
    json.dumps(stored, allow_nan=False, ensure_ascii=False).encode("utf-8")
    read = document_from_dict(stored)
    assert read.title == "lone \ufffd surrogate"
    assert read.suspects[0].curve == (None, 0.5)
    assert math.isnan(read.suspects[0].suspicion)


def test_keys_of_a_later_version_of_the_same_format_are_ignored():
    stored = document_to_dict(full_document()) | {"new": 1}
    assert document_from_dict(stored) == full_document()


def test_fields_with_a_default_may_be_missing():
    stored = document_to_dict(document())
    del stored["notes"]
    assert document_from_dict(stored) == document()


def test_a_verdict_stored_without_what_it_rests_on_is_read():
    verdict = VerdictSummary("About 3.", (), "Who.", (), 0.95, basis="The share rests on luck.")
    whole = document(verdict=verdict)
    assert "rests on luck" in render(whole)
    stored = document_to_dict(whole)
    del stored["verdict"]["basis"]
    assert document_from_dict(stored) == document(verdict=dataclasses.replace(verdict, basis=""))


def _without(stored, key):
    return {name: value for name, value in stored.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"format": 2}, "format 2, and this version reads up to 1: upgrade"),
        (lambda d: d | {"format": "1"}, "format must be a number from 1, got '1'"),
        (lambda d: _without(d, "format"), "has no format number"),
        (lambda d: [d], "has no format number"),
        (lambda d: _without(d, "headline"), "lacks 'headline'"),
        (lambda d: d | {"suspects": [{"rank": 1}]}, "lacks 'suspects[0].sample_id'"),
        (lambda d: d | {"suspects": [3]}, "'suspects[0]' must be an object, got int"),
        (lambda d: d | {"examples": True}, "'examples' must be int, got bool"),
        (lambda d: d | {"title": 1}, "'title' must be text, got int"),
        (lambda d: d | {"notes": "abc"}, "'notes' must be a list, got str"),
        (lambda d: d | {"facts": [["a"]]}, "'facts[0]' must be 2 values"),
        (
            lambda d: d | {"histograms": [d["histograms"][0] | {"counts": [1]}]},
            "'histograms[0]' cannot be used: a histogram with 3 edges must have 2 counts",
        ),
    ],
)
def test_unusable_stored_reports_are_refused_with_the_place(change, message):
    with pytest.raises(OutputError) as caught:
        document_from_dict(change(document_to_dict(full_document())))
    assert message in str(caught.value)


# Page


def test_page_shows_every_part():
    words = Page(render(full_document())).texts()
    for part in (
        "pets",
        "2 of 10 labels look wrong.",
        "20%",
        "1 picture was skipped.",
        "/data/pets",
    ):
        assert part in words
    for part in (
        "cumulative_loss",
        "train/1.png",
        "id 101",
        "3.500",
        "el2n",
        "\u22122.5",
        "ranking.csv",
    ):
        assert part in words


@pytest.mark.parametrize("name", TRICKY_NAMES)
def test_names_appear_as_text_everywhere_and_run_nowhere(name):
    page = Page(
        render(
            document(
                title=name,
                headline=name,
                detector=name,
                facts=((name, name),),
                notes=(name,),
                classes=(ClassSummary(name, 3, 1),),
                pairs=(PairSummary(name, "dog", 1),),
                suspects=(
                    suspect(given=name, source=name, reason=name, thumbnail=PNG, split=name),
                    suspect(2, "dog", name, features=((name, 1.0),), scores=((name, 1.0),)),
                ),
                histograms=(Histogram(name, name, (0.0, 1.0), (1,), (0,)),),
                settings=((name, name),),
                version=name,
            )
        )
    )
    reference = Page(render(full_document()))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in reference.elements}
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert page.raw == reference.raw
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert " ".join(name.split()) in page.texts()
    assert page.all("img")[0]["alt"] == f"Example 101, labelled {name}"


def test_page_asks_for_nothing_outside():
    page = Page(render(full_document()))
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), attributes
    assert not page.all("link")
    assert not re.search(r"url\(|@import|https?:", "".join(page.raw))


def test_policy_lets_only_the_pages_own_script_run():
    text = render(full_document())
    script = re.search("<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [a["content"] for a in Page(text).all("meta") if "http-equiv" in a]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]


def test_pictures_from_elsewhere_are_left_out():
    page = Page(render(document(suspects=(suspect(thumbnail="http://example.org/a.png"),))))
    assert not page.all("img")
    assert "No picture" in page.texts()


def test_only_small_pictures_are_enlarged_without_smoothing():
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (200).to_bytes(4, "big") * 2
    large = "data:image/png;base64," + base64.b64encode(header).decode()
    others = (large, "data:image/jpeg;base64,AAAA", "data:image/png;base64,A")
    suspects = tuple(suspect(i + 1, thumbnail=uri) for i, uri in enumerate((PNG, *others)))
    images = Page(render(document(suspects=suspects))).all("img")
    assert [image.get("class") for image in images] == ["pixels", None, None, None]


def test_a_name_cannot_turn_round_the_sentence_that_quotes_it():
    text = render(document(suspects=(suspect(reason="It is \u202eodd\u2069 here."),)))
    assert ">It is odd here.</p>" in text


@pytest.mark.parametrize("code", [0xDC80, 0xD800])
def test_lone_surrogates_are_replaced_and_the_page_is_utf8(tmp_path, code):
    lone = chr(code)
    path = tmp_path / "report.html"
    write_report(document(suspects=(suspect(source=f"a{lone}b.png", given=lone),)), path)
    assert "a\ufffdb.png" in path.read_text(encoding="utf-8")


def test_empty_states_say_so():
    words = Page(render(document(issues=0))).texts()
    for part in (
        "There are no suspects to show.",
        "No label looks wrong, so no classes are mixed up.",
        "No classes were stored.",
        "No scores were stored.",
        "No training history was stored.",
    ):
        assert part in words


def _review(text):
    (found,) = (a for tag, a in Page(text).elements if a.get("id") == "review")
    return found


def test_review_knows_data_labels_and_every_class_exactly():
    names = (*TRICKY_NAMES, "two\r\nlines", " padded ", "lone \udc80 surrogate")
    text = render(
        document(suspects=(suspect(),), data_digest="d1", labels_digest="l2", class_names=names)
    )
    found = _review(text)
    assert (found["data-data"], found["data-labels"], found["data-key"]) == ("d1", "l2", "d1 l2")
    assert json.loads(found["data-names"]) == [*names, "cat", "dog"]
    assert "'" not in re.search(r"data-names='(.*?)' hidden>", text).group(1)


def test_review_of_a_report_stored_before_takes_the_fingerprint_from_its_facts():
    stored = document_to_dict(document(suspects=(suspect(),), facts=(("fingerprint", "d1"),)))
    for key in ("data_digest", "labels_digest", "class_names"):
        del stored[key]
    found = _review(render(document_from_dict(stored)))
    assert (found["data-data"], found["data-labels"], found["data-key"]) == ("d1", "", "d1")


def test_review_without_any_digest_keeps_reports_apart_by_their_suspects():
    keys = [
        _review(render(document(suspects=(suspect(given=name),), title="same")))["data-key"]
        for name in ("cat", "bird", "cat")
    ]
    assert keys[0] == keys[2] != keys[1]
    assert len(keys[0]) == 32


def test_a_suspect_names_the_copies_of_its_picture():
    copies = tuple(Copy(100 + i, f"{i}.png", f"label {i}") for i in range(1, 6))
    group = CopyGroup(4, "near", True, False, "", copies, more=2)
    counts = ("groups", "conflicts", "leaks", "leaks_alone", "spare")
    page = Page(
        render(
            document(
                suspects=(suspect(), suspect(20)),
                groups=(group,),
                copies=tuple((name, 1) for name in counts),
            )
        )
    )
    (link,) = (a for a in page.all("a") if a.get("class") == "copy-link")
    assert link["href"] == "#group-4"
    shown = "Near copy : label 2 (id 102), label 3 (id 103), label 4 (id 104) and 3 more"
    assert shown in page.texts()
    assert "group-4" in [a.get("id") for a in page.all("li")]


def test_page_has_room_for_all_that_looks_wrong_while_it_stays_small(monkeypatch, tmp_path):
    def shown():
        report = audit(load("digits", limit=120), out=tmp_path, epochs=1, duplicates=False)
        assert report.document.class_names == tuple("0123456789")
        return len(report.document.suspects), int(report.findings.is_label_issue.sum())

    monkeypatch.setattr(suspects_presentation, "_SUSPECTS", 10)
    count, issues = shown()
    assert count == issues > 10
    monkeypatch.setattr(suspects_presentation, "_PAGE_BYTES", 4000 * 20)
    count, _ = shown()
    assert 10 < count < 27  # a card without its picture takes 3,000
    monkeypatch.setattr(suspects_presentation, "_PAGE_BYTES", 0)
    assert shown()[0] == 10


def test_no_examples_at_all_is_no_division_by_zero():
    assert "0.0%" in render(document(examples=0, issues=0, classes=(ClassSummary("cat", 0, 0),)))


def test_vectors_show_features_in_place_of_a_picture():
    page = Page(render(document(suspects=(suspect(features=(("width", 2.5),)),))))
    assert "width +2.5" in page.texts()
    assert "No picture" not in page.texts()


def test_values_that_are_not_finite_are_shown_as_missing():
    odd = suspect(suspicion=math.nan, features=(("w", math.inf),), scores=(("el2n", math.nan),))
    page = Page(render(document(suspects=(odd,), training=(EpochSummary(1, math.nan, None),))))
    assert page.texts().count("\u2013") == 3


def test_a_thousand_classes_are_folded_with_the_worst_in_front():
    classes = tuple(ClassSummary(f"class {i}", 50, i % 50) for i in range(1000))
    text = render(document(classes=classes))
    before, _, after = text.partition("970 more classes")
    assert before.count(">class ") == 30
    assert after.count(">class ") == 970
    assert ">class 49<" in before


def test_rendering_is_repeatable_and_changes_nothing():
    first = full_document()
    copy = dataclasses.replace(first)
    assert render(first) == render(first)
    assert first == copy


def test_write_report_to_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(document(), tmp_path / "missing" / "report.html")
