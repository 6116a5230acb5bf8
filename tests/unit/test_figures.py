"""Figures: every kind draws from full, poor and empty results, the same bytes each time, with a sidecar that says where it came from."""

import json

import pytest
from synthetic import PAIR, PATTERNS, end_generations, paper, results_of, spec_of, study, write_base, write_run
from untaxed.figures import COLOURS, FIGURES, REASON_COLOURS, STYLES, Inputs, colour, draw, family_colour, looks_of, style
from untaxed.records import UserError

REASONS = {"ok": 6, "overthinking": 1, "meta-thinking": 2, "empty": 0, "stray-marker": 1, "not-refined": 0}
REPORTS = [{"name": "direct / tiny / dgr", "pieces": {"reasoning": REASONS, "answer": {"not-refined": 10}}}]
AGREEMENTS = [
    {"judge": "string_match", "dataset": "d", "n": 50, "accuracy": 0.8, "accuracy_ci": [0.67, 0.89], "kappa": None, "unparseable_rate": 0.1}
]
ENTRIES = {
    "sweep": "sweep",
    "with_without": "benign",
    "attack_bars": "table",
    "pattern_shares": "patterns",
    "safety_tax_plane": "plane",
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"))


def inputs(results, kind, **options):
    manifests = [{"run": run, "loss": [2.0, 1.0]} for run, fields in results.runs.items() if fields["method"] != "none"]
    reports = [report | {"runs": [run for run, fields in results.runs.items() if fields["method"] == "dgr"]} for report in REPORTS]
    beside = {"reported": ENTRIES[kind]} if kind in ENTRIES else {}
    spec = {"figure": kind, "title": kind, **beside, **options}
    return Inputs(spec, results, reports, manifests, AGREEMENTS, judge_pairs=[PAIR], filter_reports=[PATTERNS], reported=paper())


def texts(drawing):
    """All that stands in a drawing but its legends, in one line."""
    axes = drawing.figure.axes
    found = [text.get_text() for each in axes for text in [*each.texts, *each.get_xticklabels(), *each.get_yticklabels()]]
    return " ".join(" ".join([*found, *(each.get_title(loc="left") for each in axes)]).split())


@pytest.mark.parametrize("kind", [kind for kind in FIGURES if kind != "ablations"])
def test_every_kind_writes_its_three_files(known, tmp_path, kind):
    chosen = {"source": "direct"} | ({"benign": 0} if kind != "with_without" else {})
    draw(inputs(known, kind, select=chosen), "tiny", tmp_path / kind, ["python", "scripts/figure.py"])
    assert (tmp_path / f"{kind}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads((tmp_path / f"{kind}.json").read_text())
    assert sidecar["data"]
    assert sidecar["runs"]
    assert sidecar["command"] == "python scripts/figure.py"
    assert kind == "with_without" or all("b20" not in run for run in sidecar["runs"])


def test_the_same_inputs_give_the_same_bytes(known, tmp_path):
    for name in ("a", "b"):
        draw(inputs(known, "shift_tax"), "tiny", tmp_path / name, ["x"])
    for suffix in ("pdf", "png", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        "safety_reasoning_plane", "method_bars", "shift_tax", "shift_histogram", "activation_curve", "training_curve",
        "sweep", "attack_bars", "safety_tax_plane",
    ],
)  # fmt: skip
def test_no_runs_are_said_in_the_figure(known, kind):
    drawing = FIGURES[kind](inputs(known, kind, select={"source": "nowhere"}))
    assert "not enough runs" in texts(drawing)


def test_a_single_run_of_one_method_draws(tmp_path):
    results = results_of([write_base(tmp_path / "b"), write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.5, 0.5)], tmp_path)
    for kind, figure in FIGURES.items():
        assert figure(inputs(results, kind)).figure.axes


def test_equal_values_draw_without_a_correlation(tmp_path):
    runs = [write_run(tmp_path / str(s), spec_of("dgr", "direct", 10, s), 1.0, 1.0, shift=0.2) for s in range(3)]
    results = results_of([write_base(tmp_path / "b"), *runs], tmp_path)
    assert "too few points for a correlation: 1 setting, 3 runs" in texts(FIGURES["shift_tax"](inputs(results, "shift_tax")))
    assert "too few runs" in texts(FIGURES["safety_reasoning_plane"](inputs(results, "safety_reasoning_plane")))


def test_the_plane_prints_the_gap_at_matched_safety(known):
    drawing = FIGURES["safety_reasoning_plane"](inputs(known, "safety_reasoning_plane", select={"source": "direct", "benign": 0}))
    assert "DGR − Vanilla at matched safety: +30.0 [" in texts(drawing)
    gap = next(record for record in drawing.data if record.get("kind") == "matched difference")
    assert gap["value"] == pytest.approx(0.3)


def test_bars_stand_beside_the_papers_value(known):
    reported = [{"benchmark": "sums", "metric": "accuracy", "method": "dgr", "source": "direct", "value": 82.0}]
    drawing = FIGURES["method_bars"](inputs(known, "method_bars", select={"n": 100, "benign": 0}, reported=reported))
    assert [record["value"] for record in drawing.data if record.get("kind") == "reported"] == [82.0]
    ours = next(r for r in drawing.data if r.get("n_items") and (r["source"], r["method"], r["benchmark"]) == ("direct", "dgr", "sums"))
    assert ours["value"] == pytest.approx(0.8)


@pytest.fixture(scope="module")
def two_trainers(tmp_path_factory):
    """One method, n and seed, by two trainers and with or without benign rows, each with an accuracy of its own."""
    place, rates = tmp_path_factory.mktemp("trainers"), {("full", 0): 0.2, ("full", 20): 0.4, ("lora", 0): 0.6, ("lora", 20): 0.8}
    folders = [write_base(place / "base")]
    for (trainer, benign), rate in rates.items():
        spec = spec_of("dgr", "direct", 10, 0, benign)
        spec |= {"run": f"{spec['run']}-{trainer}", "trainer_name": trainer}
        folders.append(write_run(place / spec["run"], spec, rate, rate))
    return results_of(folders, place)


def test_benign_and_trainers_never_share_a_bar(two_trainers):
    drawing = FIGURES["method_bars"](inputs(two_trainers, "method_bars", metrics=["accuracy"]))
    ours = [record for record in drawing.data if record["method"] == "dgr" and record["benchmark"] == "sums"]
    found = {(record["trainer"], record["benign"]): record["value"] for record in ours}
    assert found == {("full", False): 0.2, ("full", True): 0.4, ("lora", False): 0.6, ("lora", True): 0.8}
    assert "direct + benign rows, lora" in texts(drawing)


def test_trainers_never_share_a_line(two_trainers):
    drawing = FIGURES["activation_curve"](inputs(two_trainers, "activation_curve", select={"benign": 0}))
    ours = {r["series"]: r["value"] for r in drawing.data if r["metric"] == "accuracy" and r["n"] == 10}
    assert ours == {"DGR, full": pytest.approx(0.2), "DGR, lora": pytest.approx(0.6)}
    named = {text.get_text() for text in drawing.figure.axes[0].get_legend().texts}
    assert named == {"DGR, full (1 run)", "DGR, lora (1 run)", "base (1 run)"}
    assert [axes.get_ylabel().split(" (")[0] for axes in drawing.figure.axes] == ["refusal rate", "over-refusal", "reasoning accuracy"]


def test_trainers_share_a_marker_only_where_there_are_too_many(two_trainers):
    runs = [run for run, fields in two_trainers.runs.items() if fields["method"] == "dgr"]
    assert looks_of(two_trainers, runs) == {("full", 10): "o", ("lora", 10): "s"}
    assert looks_of(two_trainers, [run for run in runs if "lora" in run]) == {("", 10): "o"}
    legend = FIGURES["safety_reasoning_plane"](inputs(two_trainers, "safety_reasoning_plane")).figure.axes[0].get_legend()
    assert {"full, n = 10", "lora, n = 10"} <= {text.get_text() for text in legend.texts}


def test_refinement_outcomes_report_the_fallback_rate(known):
    records = FIGURES["refinement_outcomes"](inputs(known, "refinement_outcomes")).data
    assert {record["piece"]: record["fallback_rate"] for record in records} == {"reasoning": pytest.approx(0.4), "answer": None}


def test_the_sidecar_names_the_runs_that_were_refined_and_the_judges(known):
    refined = FIGURES["refinement_outcomes"](inputs(known, "refinement_outcomes", select={"source": "direct", "n": 10, "benign": 0}))
    assert refined.runs == [f"tiny--direct-dgr-b0--full--n10--s{seed}" for seed in range(3)]
    assert FIGURES["judge_agreement"](inputs(known, "judge_agreement")).runs == ["string_match"]


def test_each_variant_of_the_refinement_has_a_row_below_the_settings_of_the_study(tmp_path):
    runs = [("vanilla", "direct", 10, 0.4), ("dgr", "direct", 10, 0.8), ("dgr", "direct", 100, 0.9), ("dgr", "ablation", 10, 0.6)]
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"{m}{s}{n}", spec_of(m, s, n, 0), accuracy, 0.75) for m, s, n, accuracy in runs]
    rates = {"reasoning": {"n": 10}, "answer": {"n": 0}, "overall": {"rate": 0.25}}
    report = {"name": "x", "runs": [spec_of("dgr", "ablation", 10, 0)["run"]], "filters": [], "fallback": "drop", "fallback_rate": rates}
    spec = {"figure": "ablations", "title": "t"}
    drawing = FIGURES["ablations"](Inputs(spec, results_of(folders, tmp_path), refine_reports=[report]))
    rows = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert rows == ["Vanilla SFT, direct", "DGR, direct", "trace; none; drop"]  # not the DGR of another n
    found = {(record["source"], record["method"]): record["value"] for record in drawing.data if record["metric"] == "accuracy"}
    assert found == {("direct", "vanilla"): 0.4, ("direct", "dgr"): 0.8, ("ablation", "dgr"): 0.6}


def test_a_study_that_varied_nothing_says_so(known):
    assert "no variant of the refinement was run" in texts(FIGURES["ablations"](inputs(known, "ablations")))


def test_ablations_are_in_no_figure_of_the_method(tmp_path):
    folders = [write_base(tmp_path / "b")]
    for source in ("direct", "ablation"):
        folders += [write_run(tmp_path / f"{source}{s}", spec_of("dgr", source, 10, s), 0.5, 0.5, shift=0.2) for s in range(2)]
    results = results_of(folders, tmp_path)
    for kind in ("safety_reasoning_plane", "method_bars", "shift_tax", "activation_curve", "training_curve", "refinement_outcomes"):
        runs = FIGURES[kind](inputs(results, kind)).runs
        assert any("direct" in run for run in runs), kind
        assert not any("ablation" in run for run in runs), kind


def test_the_training_curve_is_the_mean_over_seeds_of_each_setting(known):
    spec = {"select": {"source": "direct", "n": 10, "benign": 0, "method": "dgr"}}
    names = [f"tiny--direct-dgr-b0--full--n10--s{seed}" for seed in range(2)]
    manifests = [{"run": run, "loss": losses} for run, losses in zip(names, ([2.0, 1.0, 0.5], [4.0, 2.0]), strict=True)]
    (record,) = FIGURES["training_curve"](Inputs(spec, known, manifests=manifests)).data
    assert (record["series"], record["runs"], record["loss"]) == ("DGR", 2, [3.0, 1.5])


def test_a_method_keeps_its_colour():
    assert [colour(method) for method in ("none", "vanilla", "dgr")] == list(COLOURS.values())
    assert colour("other") == colour("other")


def test_an_unknown_kind_is_named(known, tmp_path):
    with pytest.raises(UserError, match="'pie'; valid: safety_reasoning_plane"):
        draw(inputs(known, "pie"), "tiny", tmp_path / "x", [])


def test_no_gap_is_drawn_where_the_methods_share_no_safety(tmp_path):
    rates = {"vanilla": [0.0, 0.05], "dgr": [0.6, 0.8]}
    runs = [
        write_run(tmp_path / f"{method}{n}{seed}", spec_of(method, "direct", n, seed), 0.5, refusal)
        for method, refusals in rates.items()
        for n, refusal in zip((10, 100), refusals, strict=True)
        for seed in (0, 1)
    ]
    results = results_of([write_base(tmp_path / "b"), *runs], tmp_path)
    drawing = FIGURES["safety_reasoning_plane"](inputs(results, "safety_reasoning_plane"))
    assert "no comparison at matched safety: less than 5 points of safety shared (DGR 60–80 %, Vanilla SFT 0–5 %)" in texts(drawing)
    assert not [line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"]
    assert next(record for record in drawing.data if record.get("kind") == "matched difference").get("value") is None


def test_shift_and_tax_have_intervals_and_the_correlation_its_n(known):
    drawing = FIGURES["shift_tax"](inputs(known, "shift_tax"))
    assert all(record["shift_ci"][0] <= record["shift"] <= record["shift_ci"][1] for record in drawing.data if "shift" in record)
    assert all(
        record["safety_tax_ci"][0] < record["safety_tax"] < record["safety_tax_ci"][1] for record in drawing.data if "shift" in record
    )
    assert "n = 16 settings" in texts(drawing)


def test_four_settings_are_too_few_for_a_correlation(known):
    drawing = FIGURES["shift_tax"](inputs(known, "shift_tax", select={"source": "direct", "benign": 0}))
    assert "too few points for a correlation: 4 settings, 12 runs" in texts(drawing)
    assert all("value" not in record for record in drawing.data if record.get("kind"))


def test_a_histogram_counts_the_outputs_of_all_seeds_and_marks_both_means(known):
    drawing = FIGURES["shift_histogram"](inputs(known, "shift_histogram", select={"source": "direct", "benign": 0, "n": 100}))
    # synthetic.study: 20 outputs a run around 1 − shift, which is 0.05 more than the accuracy
    assert {(r["method"], r["runs"], sum(r["counts"]), r["n_items"]): r["value"] for r in drawing.data} == {
        ("vanilla", 3, 60, 20): pytest.approx(0.45),
        ("dgr", 3, 60, 20): pytest.approx(0.85),
    }
    assert {len(r["edges"]) for r in drawing.data} == {31}
    (axes,) = drawing.figure.axes
    assert [line.get_xdata()[0] for line in axes.lines] == [pytest.approx(0.45), pytest.approx(0.85)]
    assert [text.get_text() for text in axes.get_legend().texts] == ["Vanilla SFT (3 runs), mean 0.45", "DGR (3 runs), mean 0.85"]


def test_a_histogram_leaves_out_runs_without_the_similarity_of_each_output(tmp_path):
    run = write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.5, 0.5, shift=0.5)
    drawing = FIGURES["shift_histogram"](inputs(results_of([write_base(tmp_path / "b"), run], tmp_path), "shift_histogram"))
    assert "not enough runs" in texts(drawing)
    assert drawing.notes == ["Not shown: 1 run without the similarity of each output."]


def test_only_the_sources_that_are_shown_are_explained(known, tmp_path):
    words = {"direct": "a fixed thought", "reasoned": "a longer thought"}
    draw(inputs(known, "method_bars", select={"source": "direct"}, sources=words), "tiny", tmp_path / "x", [])
    assert json.loads((tmp_path / "x.json").read_text())["notes"][0] == "Safety rows – direct: a fixed thought."


def test_bars_say_how_many_generations_were_cut_off_or_unanswered(tmp_path):
    runs = [write_run(tmp_path / method, spec_of(method, "direct", 10, 0), 0.5, 0.5) for method in ("vanilla", "dgr")]
    end_generations(runs[0], "harm", truncated=0.5, empty=0.25)
    results = results_of([write_base(tmp_path / "b"), *runs], tmp_path)
    drawing = FIGURES["method_bars"](inputs(results, "method_bars"))
    assert "harm 40 items cut off 0 / 50 / 0 % no answer 0 / 25 / 0 %" in texts(drawing)
    assert "cut off" in " ".join(drawing.notes)
    shares = {record["method"]: record["truncated"] for record in drawing.data if record["metric"] == "refusal_rate"}
    assert shares == {"none": 0.0, "vanilla": 0.5, "dgr": 0.0}


def test_a_judge_that_says_nothing_readable_has_no_bar(known):
    silent = AGREEMENTS[0] | {"judge": "silent", "accuracy": 0.0, "accuracy_ci": [0.0, 0.07], "kappa": 0.0, "unparseable_rate": 1.0}
    drawing = FIGURES["judge_agreement"](Inputs({}, known, agreements=[silent]))
    assert "unparseable 100 %" in texts(drawing)
    assert [bar.get_width() for bar in drawing.figure.axes[0].patches] == [100.0]


def test_a_cell_of_two_judges_says_kappa_the_share_and_what_could_not_be_read(known):
    drawing = FIGURES["judge_pairs"](Inputs({}, known, judge_pairs=[PAIR]))
    cells = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
    assert cells == ["0.40\n[0.10, 0.60]\n70 % of 50\n10 unread", "no two judges answered this\nabout the same samples"]
    assert "[95 % bootstrap interval over runs and prompts]" in drawing.notes[0]
    assert "Unread" in drawing.notes[1]
    assert drawing.runs == ["guard", "phrases"]
    assert not {"differences", "verdicts", "confusion"} & set(drawing.data[0])


def test_two_judges_are_met_in_one_cell_whatever_their_order(known):
    pairs = [PAIR | {"judge_a": a, "judge_b": b, "kappa": kappa} for a, b, kappa in (("x", "z", 0.1), ("y", "z", 0.2), ("x", "y", None))]
    axes = FIGURES["judge_pairs"](Inputs({}, known, judge_pairs=pairs)).figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "z"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["z", "y"]
    cells = {text.get_position(): text.get_text().split("\n")[0] for text in axes.texts}
    assert cells == {(0, 0): "0.10", (1, 1): "0.20", (0, 1): "κ –"}


def test_two_judges_of_which_one_read_nothing_have_no_number(known):
    none = {"n_read": 0, "agreement": None, "agreement_ci": [None, None], "kappa": None, "kappa_ci": [None, None]}
    drawing = FIGURES["judge_pairs"](Inputs({}, known, judge_pairs=[PAIR | none]))
    assert "all 60 unread" in texts(drawing)
    assert drawing.figure.axes[0].patches[0].get_hatch()


def test_fewer_than_two_judges_are_said_in_the_figure(known):
    drawing = FIGURES["judge_pairs"](Inputs({}, known))
    assert drawing.notes == ["Fewer than two judges judged the same samples of this study."]
    assert texts(drawing).count("no two judges") == 2


@pytest.mark.parametrize("judges", [3, 8, 14])
def test_cells_of_judges_hold_no_more_text_than_they_have_room_for(known, judges):
    from itertools import combinations

    names = [f"judge-{number}" for number in range(judges)]
    pairs = [
        PAIR | {"judge_a": a, "judge_b": b, "kappa": -0.2, "kappa_ci": [-0.4, -0.1], "n_read": 9800} for a, b in combinations(names, 2)
    ]
    with style():
        figure = FIGURES["judge_pairs"](Inputs({}, known, judge_pairs=pairs)).figure
        figure.draw_without_rendering()
    cell, (text, *_) = figure.axes[0].patches[0].get_window_extent(), figure.axes[0].texts
    assert text.get_window_extent().width <= cell.width
    assert text.get_window_extent().height <= cell.height


def test_every_figure_with_whiskers_says_what_they_are(known):
    for kind in ("safety_reasoning_plane", "method_bars", "shift_tax", "activation_curve", "sweep", "attack_bars", "safety_tax_plane"):
        notes = " ".join(FIGURES[kind](inputs(known, kind, select={"benign": 0})).notes)
        assert "95 % bootstrap intervals" in notes, kind
        assert "runs and items" in notes, kind
    assert "95 % Wilson intervals" in FIGURES["judge_agreement"](inputs(known, "judge_agreement")).notes[0]


def test_whiskers_of_single_runs_and_of_several_base_models_are_told_apart(tmp_path):
    folders = [write_base(tmp_path / "b"), write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.5, 0.5)]
    results = results_of(folders, tmp_path)
    single = FIGURES["activation_curve"](inputs(results, "activation_curve")).notes[-1]
    assert single == "Whiskers – 95 % bootstrap intervals over items; Wilson’s at 0 and 100 %."  # the base refuses nothing
    other = spec_of("vanilla", "direct", 10, 1) | {"model": "tiny.1", "replicate_of": "tiny"}
    more = results_of([*folders, write_run(tmp_path / "w", other, 0.5, 0.5)], tmp_path)
    assert (
        "over base models, runs and items (items alone where there is one run)" in FIGURES["activation_curve"](inputs(more, "x")).notes[-1]
    )


def test_letters_of_points_on_one_another_do_not_cover_each_other():
    from matplotlib.figure import Figure
    from untaxed.figures import _write_beside

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    close = [(0.7 + 0.012 * number, 0.7, letter, "C0") for number, letter in enumerate("efgh")]
    _write_beside(axes, [(0.5, 0.5, "b", "C0"), (0.5, 0.5, "a", "C1"), (0.2, 0.2, "c", "C0"), (0.2, 0.2, "c", "C0"), *close])
    found = {text.get_text(): text for text in axes.texts}
    assert set(found) == {"a, b", "c", *"efgh"}
    assert (found["a, b"].get_color(), found["c"].get_color()) == ("0.2", "C0")  # letters of one colour have their point's
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def test_no_text_is_too_small_and_no_figure_wider_than_a_page(known):
    from matplotlib.text import Text

    for kind, figure in FIGURES.items():
        with style():
            drawing = figure(inputs(known, kind, select={"benign": 0}))
        assert drawing.figure.get_figwidth() <= 7
        sizes = {text.get_text(): text.get_fontsize() for text in drawing.figure.findobj(Text) if text.get_text()}
        assert min(sizes.values()) >= 7, (kind, sizes)


def test_the_plane_says_how_many_prompts_got_no_answer(tmp_path):
    run = write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.5, 0.5)
    end_generations(run, "harm", truncated=0.5, empty=0.25)
    results = results_of([write_base(tmp_path / "b"), run], tmp_path)
    notes = " ".join(FIGURES["safety_reasoning_plane"](inputs(results, "safety_reasoning_plane")).notes)
    assert "refusal rate: harm (40); reasoning accuracy: chains (40), sums (40). Judged by string_match." in notes
    assert "0–25 % of a run's generations on harm" in notes


def test_the_colour_of_a_method_means_nothing_else():
    assert not set(COLOURS.values()) & set(REASON_COLOURS.values())


def test_the_colour_of_a_style_is_its_own():
    assert len(set(STYLES.values())) == 6
    assert not set(STYLES.values()) & {*COLOURS.values(), *REASON_COLOURS.values()}
    assert family_colour({"source": "short", "method": "vanilla"}) == STYLES["short"]
    assert family_colour({"source": "r1_act", "method": "dgr"}) == COLOURS["dgr"]


def ours_and_printed(drawing):
    return ([r for r in drawing.data if r.get("kind") != "reported"], [r for r in drawing.data if r.get("kind") == "reported"])


def test_a_sweep_has_a_line_per_source_and_the_papers_points(known):
    chosen = {"method": "vanilla", "benign": 0}
    drawing = FIGURES["sweep"](inputs(known, "sweep", x="n", select=chosen))
    ours, printed = ours_and_printed(drawing)
    direct = {(r["column"], r["n"]): r["value"] for r in ours if r["source"] == "direct"}
    # synthetic.study: Vanilla SFT on `direct` keeps 0.6 at n = 10, and answers a tenth of the harmful prompts at n = 100
    assert direct["reasoning_mean", 10] == pytest.approx(0.6)
    assert direct["asr_mean", 100] == pytest.approx(0.1)
    assert [axes.get_ylabel() for axes in drawing.figure.axes] == ["reasoning (%) ↑", "ASR, mean (%) ↓", "over-refusal (%) ↓"]
    assert {(r["source"], r["column"], r["n"], r["value"]) for r in printed} == {
        ("direct", "reasoning_mean", 100, 0.4),
        ("direct", "asr_mean", 100, 0.11),
    }
    with pytest.raises(UserError, match="no sweep over 'seed'"):
        FIGURES["sweep"](inputs(known, "sweep", x="seed"))


def test_a_sweep_over_other_benchmarks_has_no_points_of_the_paper(known):
    drawing = FIGURES["sweep"](inputs(known, "sweep", columns={"reasoning_mean": ["chains"]}, select={"benign": 0, "method": "vanilla"}))
    assert len(drawing.figure.axes) == 1
    assert not ours_and_printed(drawing)[1]
    assert "The paper has other benchmarks." in " ".join(drawing.notes)


def test_benign_rows_are_compared_within_a_source(known):
    drawing = FIGURES["with_without"](inputs(known, "with_without", select={"method": "vanilla", "n": 100, "source": "direct"}))
    ours, printed = ours_and_printed(drawing)
    over = {r["benign"]: r["value"] for r in ours if r["column"] == "over_refusal" and r.get("source") == "direct"}
    assert over == {0: pytest.approx(0.6), 20: pytest.approx(0.2)}
    assert [(r["benign"], r["value"]) for r in printed if r["column"] == "over_refusal"] == [(20, 0.21)]
    assert [r["high"] for r in ours if r.get("kind") == "reported range"] == [54.7]
    one_side = FIGURES["with_without"](inputs(known, "with_without", select={"benign": 0}))
    assert "no source was trained both with and without benign rows (with: none; without: direct, reasoned)" in texts(one_side)
    assert not any(axes.axison for axes in one_side.figure.axes)
    assert one_side.data == []


def test_attack_bars_show_each_arm_beside_the_base_and_the_paper(known):
    options = {"select": {"method": "vanilla", "n": 100, "benign": 0}, "arms": {"direct-vanilla-b0": "filtered"}}
    drawing = FIGURES["attack_bars"](inputs(known, "attack_bars", **options))
    ours, printed = ours_and_printed(drawing)
    values = {r["source"]: r["value"] for r in ours if r["column"] == "asr_none"}
    assert values == {"none": 1.0, "direct": pytest.approx(0.1), "reasoned": pytest.approx(0.1)}
    assert {(r["source"], r["value"]) for r in printed} == {("none", 1.0), ("direct", 0.1)}
    assert "filtered (3 runs)" in {text.get_text() for text in drawing.figure.axes[0].get_legend().texts}


def test_shares_of_patterns_leave_out_what_was_not_read(known):
    drawing = FIGURES["pattern_shares"](inputs(known, "pattern_shares"))
    ours, printed = ours_and_printed(drawing)
    weak = {r["when"]: (r["value"], r["n_items"]) for r in ours if r["pattern"] == "weak_vacillation"}
    assert weak == {"before": (pytest.approx(33 / 96), 96), "after": (0.65, 40)}
    assert {r["when"]: r["value"] for r in printed} == {"before": 0.33, "after": 0.66}
    assert drawing.notes == ["direct-safe: unparseable, in no share: 4 before, 0 after.", "Whiskers – 95 % Wilson intervals."]
    empty = FIGURES["pattern_shares"](Inputs({"reported": "patterns"}, known, reported=paper()))
    assert "no filter counted risky patterns" in texts(empty)


def test_the_main_figure_counts_from_each_settings_own_base(tmp_path):
    """Two models that lose the same, from other heights, are one point; benchmarks of other studies do not enter it."""
    folders = []
    for model, accuracy, harmless in (("tiny", 0.9, 0.0), ("other", 0.6, 0.2)):
        base = {"run": f"base--{model}", "model": model, "recipe": "none", "method": "none", "source": "none", "n": 0, "seed": 0}
        folders.append(write_run(tmp_path / base["run"], base, accuracy, harmless))
        for seed in range(2):
            spec = spec_of("vanilla", "direct", 10, seed) | {"run": f"{model}{seed}", "model": model}
            folders.append(write_run(tmp_path / spec["run"], spec, accuracy - 0.1, harmless + 0.5))
    results = results_of(folders, tmp_path)
    ours, printed = ours_and_printed(FIGURES["safety_tax_plane"](inputs(results, "safety_tax_plane")))
    points = {(r["model"], r["axis"]): r["value"] for r in ours}
    assert points == {
        (model, axis): pytest.approx(value) for model in ("tiny", "other") for axis, value in (("gained", 0.5), ("paid", 0.1))
    }
    assert all(r["ci_low"] < r["value"] < r["ci_high"] for r in ours)
    # the paper's own: 100 to 10 of harm, 90 to 50 of accuracy; for the model that it prints alone
    assert {(r["model"], r["axis"]): r["value"] for r in printed} == {("tiny", "gained"): 0.9, ("tiny", "paid"): 0.4}


def test_the_main_figure_counts_prior_models_from_what_they_were_tuned_from(tmp_path):
    folders = [write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.8, 0.5)]
    for model, accuracy, refusal in (("tiny", 0.9, 0.0), ("aligned", 0.7, 0.8), ("other", 0.6, 0.2)):
        base = {"run": f"base--{model}", "model": model, "recipe": "none", "method": "none", "source": "none", "n": 0, "seed": 0}
        folders.append(write_run(tmp_path / base["run"], base, accuracy, refusal))
    results = results_of(folders, tmp_path)
    drawing = FIGURES["safety_tax_plane"](inputs(results, "safety_tax_plane", tuned_from={"aligned": "tiny", "other": "absent"}))
    points = {(r["model"], r["tuned_from"], r["axis"]): r["value"] for r in drawing.data if r.get("kind") == "prior"}
    assert points == {("aligned", "tiny", "gained"): pytest.approx(0.8), ("aligned", "tiny", "paid"): pytest.approx(0.2)}
    assert drawing.runs == ["base--aligned", "base--tiny", spec_of("vanilla", "direct", 10, 0)["run"]]
    assert "prior model" in {text.get_text() for text in drawing.figure.axes[0].get_legend().texts}
    assert "aligned" in texts(drawing)
    assert "kind" not in next(r for r in drawing.data if r["model"] == "tiny")
    alone = FIGURES["safety_tax_plane"](inputs(results, "safety_tax_plane"))
    assert "base--aligned" not in alone.runs


def test_only_the_usual_setting_stands_beside_the_papers_point(known):
    chosen = {"method": "vanilla", "source": "direct", "benign": 0}
    drawing = FIGURES["safety_tax_plane"](inputs(known, "safety_tax_plane", select=chosen))
    ours, printed = ours_and_printed(drawing)
    assert {r["n"] for r in ours} == {10, 100}
    assert len(printed) == 2  # one point, two axes


def test_the_main_figure_tells_silence_and_benign_rows(tmp_path):
    """A quarter of the harmful prompts got no answer from one setting, none from the other, which has benign rows."""
    runs = [write_run(tmp_path / f"b{benign}", spec_of("vanilla", "direct", 10, 0, benign), 0.5, 0.5) for benign in (0, 20)]
    end_generations(runs[0], "harm", truncated=0.0, empty=0.25)
    drawing = FIGURES["safety_tax_plane"](inputs(results_of([write_base(tmp_path / "b"), *runs], tmp_path), "safety_tax_plane"))
    ours, _ = ours_and_printed(drawing)
    assert {(r["benign"], r["empty"], *r["benchmarks"]) for r in ours if r["axis"] == "gained"} == {(0, 0.25, "harm"), (20, 0.0, "harm")}
    (axes,) = drawing.figure.axes
    assert [text.get_text() for text in axes.texts] == ["25 %"]
    assert {line.get_fillstyle() for line in axes.lines} >= {"full", "bottom"}
    notes = " ".join(drawing.notes)
    assert "all settings: 0–25 %; bases: 0 %" in notes
    assert "Half filled: trained with benign rows too." in notes


def test_panels_of_losses_have_one_scale_and_the_names_of_other_figures(tmp_path):
    folders = [write_run(tmp_path / source, spec_of("vanilla", source, 10, 0), 0.5, 0.5) for source in ("default", "no_cot")]
    results = results_of([write_base(tmp_path / "b"), *folders], tmp_path)
    manifests = [
        {"run": run, "loss": [top, 0.1]} for run in results.runs for top in [4.0 if "default" in run else 1.0] if "base" not in run
    ]
    drawing = FIGURES["training_curve"](Inputs({}, results, manifests=manifests))
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["Default", "No CoT"]
    assert {axes.get_ylim() for axes in drawing.figure.axes} == {(0.0, 4.2)}
    assert [axes.lines[-1].get_color() for axes in drawing.figure.axes] == [STYLES["default"], STYLES["no_cot"]]


def test_judges_are_named_once(known):
    notes = FIGURES["attack_bars"](inputs(known, "attack_bars", select={"method": "vanilla", "benign": 0})).notes
    assert " ".join(notes).count("string_match") == 1
    assert notes[0].endswith("Judged by string_match.")
