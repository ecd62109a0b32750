"""Sequences from files: texts, lists of a column, padded arrays; and the command line."""

import math

import numpy as np
import pytest
import torch

import pyro_vae as pv
from helpers.commands import run
from pyro_vae.data.ragged import padded
from pyro_vae.model.sequence_forms import lengths_of

pytestmark = pytest.mark.usefixtures("short_pilot")

LINES = ["to be", "or not to be", "that", "is", "the question", "to sleep", "no more", "and by",
         "a sleep", "to say", "we end"]  # fmt: skip


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(LINES) + "\n")
    return path


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_lines_are_tokens_and_back(lines, unit):
    data = pv.load_data(str(lines), held_out=1, tokens=unit)
    assert data.ragged
    assert not data.missing
    assert data.texts == LINES
    assert data.x_shape == pv.Vocabulary.of(LINES, unit)
    words = [line.split() if unit == "words" else list(line) for line in LINES]
    assert lengths_of(data.test).tolist() == [len(row) for row in words]


@pytest.mark.slow
def test_a_model_of_texts_takes_and_gives_strings(tmp_path):
    vocabulary = pv.Vocabulary.of(LINES)
    vae = pv.VAE(vocabulary, 2, encoder="GRU(8, embedding=4)",
                 decoder="GRU(8, autoregressive=0.2)", seed=0)  # fmt: skip
    pv.fit(vae, LINES, epochs=1, batch_size=4, progress=False, seed=0)
    drawn = vae.sample(4, seed=0)
    assert all(isinstance(text, str) and set(text) <= set(vocabulary.tokens) for text in drawn)
    assert [len(text) for text in vae.reconstruct(LINES)] == [len(text) for text in LINES]
    again = pv.load(vae.save(tmp_path / "m"))
    assert again.sample(4, seed=0) == drawn
    assert torch.equal(pv.elbo(again, LINES, seed=0), pv.elbo(vae, LINES, seed=0))
    with pytest.raises(ValueError, match=r"no token 'z'.*\(step 3\).*\(in row 1\)"):
        vae.check(["to be", "to z"])
    assert torch.equal(
        vae.as_data(np.array(LINES)).nan_to_num(-1), vae.as_data(LINES).nan_to_num(-1)
    )
    with pytest.raises(ValueError, match=r"a list of texts, got one, 'to be': one alone is \[x\]"):
        vae.check("to be")


def test_lengths_beside_a_padded_array(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 5, 2)).astype(np.float32)
    n = np.arange(12) % 5 + 1
    np.savez(tmp_path / "a.npz", x=x, lengths=n)
    data = pv.load_data(str(tmp_path / "a.npz"), held_out=1)
    assert data.x_shape == (None, 2)
    assert lengths_of(data.test).tolist() == n.tolist()
    for wrong in (n + 3, n - 1, n + 0.5, n[:3], n * np.nan):
        np.savez(tmp_path / "b.npz", x=x, lengths=wrong)
        with pytest.raises(ValueError, match="lengths are 12 whole numbers from 1 to 5"):
            pv.load_data(str(tmp_path / "b.npz"))


def test_lists_in_a_column_of_a_parquet_file(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    rows = [[1, 2, 3], [0], [2, 2]] * 4
    parquet.write_table(pa.table({"notes": rows}), tmp_path / "a.parquet")
    data = pv.load_data(str(tmp_path / "a.parquet"), held_out=1)
    assert data.x_shape == (None,)
    assert torch.equal(data.test.nan_to_num(-1), padded(list(map(np.array, rows))).nan_to_num(-1))


@pytest.mark.slow
def test_melodies_are_a_data_set():
    data = pv.load_data("melodies")
    assert data.x_shape == (None,)
    assert len(data.train) == 1800
    assert data.train_labels.max() == 11
    assert lengths_of(data.train).min() >= 12


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no line of text"), (b"\xff\xfe\x00", "no text in UTF-8"), (None, "no file")],
)
def test_bad_texts_are_refused(tmp_path, text, message):
    path = tmp_path / "a.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        pv.load_data(str(path))


@pytest.mark.slow
def test_the_command_line_trains_on_lines_and_writes_lines(lines, tmp_path):
    lines.write_text("\n".join(LINES * 4))
    told = ["--encoder", "GRU(8)", "--decoder", "GRU(8, autoregressive=0.1)", "--latent-dim", 2]
    done = run("fit", lines, "--out", tmp_path / "r", "--epochs", 1, *told)
    assert done.code == 0, done.err
    done = run("sample", tmp_path / "r", "--num-samples", 5)
    assert done.code == 0, done.err
    assert len((tmp_path / "r" / "samples.txt").read_text().splitlines()) == 5
    for told, words in {
        ("--out", "s.npy"): "texts are written as .txt: --out s.txt",
        ("--given", "a=b", "--force"): "--given is of the model of a table",
    }.items():
        done = run("sample", tmp_path / "r", *told)
        assert done.code == 2 and words in done.err
    done = run("encode", tmp_path / "r", lines)
    assert done.code == 0, done.err
    assert np.load(lines.with_name("lines-z.npy")).shape == (44, 2)
    done = run("evaluate", tmp_path / "r", lines, "--num-samples", 20, "--steps", 5)
    assert done.code == 0, done.err


def test_tokens_have_no_likelihood_of_numbers():
    texts = pv.Vocabulary.of(LINES, "words")
    with pytest.raises(ValueError, match="likelihood is Categorical, got Normal: leave likelihood"):
        pv.VAE(texts, 2, likelihood="Normal", encoder="GRU(4)", decoder="GRU(4)")


def test_rolls_hold_the_steps_of_each_sequence():
    rows = [torch.tensor([0, 2]), torch.tensor([1, 1, 0])]
    ax = pv.plots.piano_roll(rows, columns=2)
    page = np.asarray(ax.get_images()[0].get_array())
    assert page.shape == (4, 8)  # three tokens and a gap; three steps and a gap, twice
    assert page[2, 0] == page[0, 1] == page[1, 4] == page[1, 5] == page[2, 6] == 1
    assert (page == 1).sum() == 5
    assert page[0, 2] == 0  # behind the first sequence
    with pytest.raises(ValueError, match="print texts"):
        pv.plots.piano_roll(["to be"])


def test_numbers_that_are_no_tokens_are_a_channel():
    rows = [torch.tensor([0.5, 2.0, -2.0]), torch.tensor([1.0])]
    page = np.asarray(pv.plots.piano_roll(rows, columns=2).get_images()[0].get_array())
    assert page.shape == (2, 8)  # a channel and a gap
    assert page[0, :3] == pytest.approx([0.625, 1, 0.12]) and page[0, 4] == 0.75


def test_what_is_missing_or_padded_stays_blank_in_a_roll():
    nan = math.nan
    rows = torch.tensor(
        [[[0.0, 2.0], [nan, 1.0], [nan, nan]], [[4.0, 0.0], [1.0, 3.0], [1.0, 0.0]]]
    )
    page = pv.plots.piano_roll(rows, columns=2).get_images()[0].get_array()
    page = np.ma.filled(np.ma.asarray(page), nan)
    own, other = page[1::-1, :3], page[1::-1, 4:7]  # channels go upward
    assert np.array_equal(np.isnan(own), rows[0].T.isnan())
    expected = (rows[1].T / 4).clamp(min=0.12)  # the ground of a sequence is pale
    assert other == pytest.approx(expected.numpy()) and own[1, 0] == 0.5
    padded = torch.tensor([[0.0, nan, nan], [1.0, 0.0, 1.0]])
    page = pv.plots.piano_roll(padded, columns=2).get_images()[0].get_array()
    assert np.isnan(np.ma.filled(np.ma.asarray(page), nan)).sum() == 4


def test_reconstructions_of_sequences_are_drawn():
    x = [torch.tensor([0, 1, 2]), torch.tensor([1])]
    line = "Categorical(categories=3)"
    vae = pv.VAE((None,), 2, likelihood=line, encoder="GRU(4)", decoder="GRU(4)", seed=0)
    vae.start_from(vae.as_data(x))
    page = np.asarray(pv.plots.reconstructed_rolls(vae, x).get_images()[0].get_array())
    assert page.shape[1] == 8
    assert (page[:3] == 1).sum() == 4
    with pytest.raises(ValueError, match="piano_roll"):
        pv.plots.samples(vae)


def test_a_file_that_is_no_text_says_so(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café\n".encode("latin-1") * 20)
    with pytest.raises(ValueError, match=r"latin.txt is no text in UTF-8 \(byte 3\): save it as"):
        pv.load_data(str(path))
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="holds no line of text: write one observation a line"):
        pv.load_data(str(path))
