"""Readers of a user's files, on tiny files of the published forms."""

import gzip
import json

import numpy as np
import pytest

from longnet.errors import ConfigError, DataError
from longnet.evaluate import readers
from longnet.evaluate.file_tasks import FILE_TASKS, open_file_task
from longnet.tasks import IGNORE, TaskBatches

Image = pytest.importorskip("PIL.Image")  # comes with matplotlib


def write_lines(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_lambada(tmp_path):
    path = write_lines(
        tmp_path / "lambada_test.jsonl",
        json.dumps({"text": "she opened the\nold door"}),
        "",
        json.dumps({"text": "é said yes", "more": 1}),
    )
    assert list(readers.read_lambada(path)) == [
        readers.Passage("she opened the\nold", " door"),
        readers.Passage("é said", " yes"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: .*expected lines such as"),
        ("[1]", "line 1: list, expected an object"),
        ('{"txt": "a b"}', "line 1: found txt, expected a key 'text'"),
        ("{}", "line 1: found no keys, expected a key 'text'"),
        ('{"text": 3}', "line 1: text 3, expected a string"),
        ('{"text": "one"}', "passage 1: passage: found 'one', expected at least two words"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = write_lines(tmp_path / "x.jsonl", line)
    with pytest.raises(DataError, match=rf"x\.jsonl, {message}"):
        list(readers.read_lambada(path))


def test_what_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "\xff b"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl: invalid start byte, expected lines"):
        list(readers.read_lambada(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (readers.read_lambada, r"No such file or directory, expected lines such as"),
        (readers.read_longbench, r"No such file or directory, expected LongBench's JSON lines"),
        (readers.read_listops, r"No such file or directory, expected ListOps' table"),
        (readers.read_retrieval, r"No such file or directory, expected pairs of documents"),
        (readers.read_pg19, r"no such folder, expected the folder of PG-19"),
        (readers.read_pathfinder, r"no such folder, expected a folder of Pathfinder"),
        (readers.read_imdb, r"no such folder, expected reviews"),
        (lambda path: readers.read_idx(path, path), r"No such file or directory, expected an IDX"),
    ],
)
def test_a_missing_file_is_one_line(tmp_path, read, message):
    with pytest.raises(DataError, match=message) as caught:
        list(read(tmp_path / "missing"))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def books(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "10146.txt").write_text("One two\nthree.", encoding="utf-8")
    (tmp_path / "test" / "9.txt").write_bytes(b"caf\xe9 au lait")
    write_lines(
        tmp_path / "metadata.csv",
        '10146,"A title, with a comma",1905,http://x/10146',
        "9,Another,1899,http://x/9",
    )
    return tmp_path


def test_pg19(books):
    assert list(readers.read_pg19(books)) == [
        readers.Book("10146", "A title, with a comma", 1905, "One two\nthree."),
        readers.Book("9", "Another", 1899, "caf\ufffd au lait"),
    ]


def test_pg19_with_something_missing(books):
    with pytest.raises(DataError, match="validation: no such folder, expected the validation"):
        list(readers.read_pg19(books, "validation"))
    write_lines(books / "metadata.csv", "9,Another,1899,http://x/9")
    with pytest.raises(DataError, match=r"10146\.txt: no row 10146 in .*metadata\.csv"):
        list(readers.read_pg19(books))
    write_lines(books / "metadata.csv", "9,Another,1899")
    with pytest.raises(DataError, match=r"line 1: 3 columns, expected 4: id, short_book_title"):
        list(readers.read_pg19(books))
    write_lines(books / "metadata.csv", "9,Another,MDCCC,http://x/9")
    with pytest.raises(DataError, match=r"line 1: publication_date 'MDCCC', expected a year"):
        list(readers.read_pg19(books))
    (books / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"metadata\.csv: No such file"):
        list(readers.read_pg19(books))


QUESTION = {
    "input": "Who?",
    "context": "A long text.",
    "answers": ["Ann", "Ann B."],
    "length": 3,
    "dataset": "hotpotqa",
    "language": "en",
    "all_classes": None,
    "_id": "0",
}


def test_longbench(tmp_path):
    other = {**QUESTION, "dataset": "trec_e", "all_classes": ["City", "Other"]}
    path = write_lines(tmp_path / "x.jsonl", json.dumps(QUESTION), json.dumps(other))
    first, second = readers.read_longbench(path)
    expected = ("hotpotqa", "A long text.", "Who?", ("Ann", "Ann B."), (), 3)
    assert first == readers.Question(*expected)
    assert (second.dataset, second.classes) == ("trec_e", ("City", "Other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": []}, "item 1: 0 answers, expected at least 1"),
        ({"answers": [1]}, r"item 1: answers \[1\], expected a list of strings"),
        ({"answers": "Ann"}, "line 1: answers 'Ann', expected a list"),
        ({"length": "3"}, "line 1: length '3', expected an integer"),
        ({"all_classes": "City"}, "item 1: all_classes 'City', expected a list of strings"),
    ],
)
def test_longbench_of_another_form(tmp_path, change, message):
    path = write_lines(tmp_path / "x.jsonl", json.dumps({**QUESTION, **change}))
    with pytest.raises(DataError, match=rf"x\.jsonl, {message}"):
        list(readers.read_longbench(path))


def test_listops(tmp_path):
    path = write_lines(
        tmp_path / "basic_test.tsv",
        "Source\tTarget",
        "( ( ( [MAX 4 ) ( ( ( [MIN 2 ) 3 ] ) ) ] ) )\t4",
    )
    (item,) = readers.read_listops(path)
    assert item == readers.LabelledText(("[MAX 4 [MIN 2 3 ] ]",), 4)
    example = open_file_task("lra_listops", path, "test").make(0, 5, 100)
    assert example.tokens.tolist() == [11, 4, 10, 2, 3, 14, 14]
    assert example.targets.tolist() == [IGNORE] * 6 + [4]
    assert example.answers == (4,)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Input\tTarget", "1\t1"], "columns Input, Target, expected 'Source'"),
        ([], "columns none, expected 'Source'"),
        (["Source\tTarget", "[MAX 1 ]"], "line 2: 1 columns, expected 2: Source, Target"),
        (["Source\tTarget", "[MAX 1 ]\t10"], "line 2: class '10', expected 0 to 9"),
    ],
)
def test_listops_of_another_form(tmp_path, lines, message):
    path = write_lines(tmp_path / "x.tsv", *lines)
    with pytest.raises(DataError, match=message):
        list(readers.read_listops(path))


def test_an_unknown_symbol_of_listops(tmp_path):
    path = write_lines(tmp_path / "x.tsv", "Source\tTarget", "[AVG 1 2 ]\t1")
    with pytest.raises(DataError, match=r"ListOps: found '\[AVG', expected one of 0 1 2"):
        open_file_task("lra_listops", path, "test").make(0, 0, 100)
    path = write_lines(tmp_path / "x.tsv", "Source\tTarget", "[MAX 1 2 ]\t1")
    with pytest.raises(DataError, match="ListOps: 4 tokens, expected at most the length 3"):
        open_file_task("lra_listops", path, "test").make(0, 0, 3)


def test_retrieval(tmp_path):
    path = write_lines(tmp_path / "aan.tsv", '1.0\ta\tb\tfirst "text\tsecond text', "0\tc\td\tx\ty")
    first, second = readers.read_retrieval(path)
    assert first == readers.LabelledText(('first "text', "second text"), 1)
    assert second == readers.LabelledText(("x", "y"), 0)
    task = open_file_task("lra_retrieval", path, "test")
    texts = {bytes(task.make(0, i, 12).tokens.astype(np.uint8)): i for i in range(2)}
    assert set(texts) == {b"\0first\0secon", b"\0x\0y"}


def test_imdb(tmp_path):
    for name, text in (("neg", "bad"), ("pos", "good")):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0_2.txt").write_text(text)
    assert [(i.texts, i.label) for i in readers.read_imdb(tmp_path)] == [
        (("bad",), 0),
        (("good",), 1),
    ]
    (tmp_path / "test" / "pos" / "0_2.txt").unlink()
    with pytest.raises(DataError, match=r"pos: 0 files \.txt, expected at least 1"):
        list(readers.read_imdb(tmp_path))


@pytest.fixture
def pathfinder(tmp_path):
    """Ten images of 3 x 2, the second of no bytes, in the lists 0, 2 and 10."""
    (tmp_path / "imgs" / "0").mkdir(parents=True)
    (tmp_path / "metadata").mkdir()
    lines = []
    for i in range(10):
        image = np.full((3, 2), i, np.uint8)
        Image.fromarray(image).save(tmp_path / "imgs" / "0" / f"sample_{i}.png")
        lines.append(f"imgs/0 sample_{i}.png {i} {i % 2} 1.0 2.0")
    (tmp_path / "imgs" / "0" / "sample_1.png").write_bytes(b"")
    for name, part in (("10", lines[8:]), ("0", lines[:4]), ("2", lines[4:8])):
        write_lines(tmp_path / "metadata" / f"{name}.npy", *part)
    return tmp_path


def test_pathfinder(pathfinder):
    with pytest.warns(UserWarning, match=r"sample_1\.png: 0 bytes, left out"):
        items = list(readers.read_pathfinder(pathfinder))
    assert [item.label for item in items] == [0, 0, 1, 0, 1, 0, 1, 0, 1]
    assert [int(item.pixels[0, 0]) for item in items] == [0, *range(2, 10)]
    assert items[3].pixels.shape == (3, 2)


@pytest.mark.filterwarnings("ignore:.*0 bytes, left out")
def test_pathfinder_is_split(pathfinder):
    tests, trains = (open_file_task("lra_pathfinder", pathfinder, s) for s in ("test", "train"))
    assert [item.path.name for item in tests.items] == ["sample_0.png"]
    assert len(trains.items) == 8
    assert trains.minimum_length == 6
    example = trains.make(3, 0, 6)
    assert trains.image(example).shape == (3, 2)
    with pytest.raises(DataError, match="length 5, expected at least 6"):
        trains.make(3, 0, 5)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(trains.items[0].path)
    with pytest.raises(DataError, match=r"sample_\d\.png: an image of \(.\, 2\), expected"):
        [open_file_task("lra_pathfinder", pathfinder, "train").make(3, i, 6) for i in range(8)]


@pytest.mark.filterwarnings("ignore:.*0 bytes, left out")
def test_pathfinder_with_something_wrong(pathfinder):
    (pathfinder / "imgs" / "0" / "sample_0.png").write_bytes(b"GIF?")
    item = next(readers.read_pathfinder(pathfinder))
    with pytest.raises(DataError, match=r"sample_0\.png: found no image, expected a PNG"):
        item.pixels  # noqa: B018
    (pathfinder / "imgs" / "0" / "sample_9.png").unlink()
    with pytest.raises(DataError, match=r"10\.npy, line 2: .*sample_9\.png: No such file"):
        list(readers.read_pathfinder(pathfinder))
    write_lines(pathfinder / "metadata" / "0.npy", "imgs/0 sample_0.png 0 2")
    with pytest.raises(DataError, match=r"0\.npy, line 1: class '2', expected 0 to 1"):
        list(readers.read_pathfinder(pathfinder))
    write_lines(pathfinder / "metadata" / "0.npy", "imgs/0 sample_0.png")
    with pytest.raises(DataError, match=r"0\.npy, line 1: 2 words, expected folder"):
        list(readers.read_pathfinder(pathfinder))


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path, rng):
    for prefix, count in (("train", 5), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 4, 3))
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 2))
    return tmp_path


def test_idx(mnist):
    items = list(
        readers.read_idx(mnist / "t10k-images-idx3-ubyte.gz", mnist / "t10k-labels-idx1-ubyte")
    )
    assert [item.label for item in items] == [0, 1, 0]
    assert items[0].pixels.shape == (4, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with no bytes, expected 00 00 08 03"),
        (b"\0\0\x0d\x03" + bytes(12), "begins with 00 00 0d 03, expected 00 00 08 03"),
        (b"\0\0\x08\x03" + bytes(3), "7 bytes, expected 16 and one for each element"),
        (idx(np.zeros((2, 2, 2)))[:-1], r"23 bytes, expected 16 and one for each .* \[2, 2, 2\]"),
        (gzip.compress(b"x" * 99)[:-9], "expected an IDX file"),
    ],
)
def test_idx_of_another_form(tmp_path, content, message):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(readers.read_idx(tmp_path / "images", tmp_path / "images"))


def test_images_and_labels_have_to_fit(mnist):
    with pytest.raises(DataError, match="5 labels, expected 3 as in"):
        list(
            readers.read_idx(mnist / "t10k-images-idx3-ubyte.gz", mnist / "train-labels-idx1-ubyte")
        )


def test_examples_of_files_are_all_items_in_turn(mnist):
    task = open_file_task("mnist", mnist, "train")
    assert (task.classes, task.chance, task.minimum_length) == (10, 0.1, 12)
    whole = {item.pixels.tobytes() for item in task.items}
    for epoch in range(3):
        made = [task.make(7, 5 * epoch + i, 12) for i in range(5)]
        assert {example.tokens.astype(np.uint8).tobytes() for example in made} == whole
    again = open_file_task("mnist", mnist, "train").make(7, 3, 12)
    assert (again.tokens == task.make(7, 3, 12).tokens).all()
    assert task.score(again, [again.answers[0]]) == 1
    assert task.shortcut(again).tolist() == [0]  # three of five
    inputs, targets = next(TaskBatches(task, 4, 12, 1))
    assert inputs.shape == (4, 12)
    assert (targets[:, :-1] == IGNORE).all()
    with pytest.raises(DataError, match=r"depth 0\.5, expected None"):
        task.make(0, 0, 12, depth=0.5)


def test_an_unknown_task_of_files(tmp_path):
    with pytest.raises(ConfigError, match="task 'lra_listop': unknown, expected lra_listops"):
        open_file_task("lra_listop", tmp_path, "test")
    assert set(FILE_TASKS) == {
        "lra_listops",
        "lra_text",
        "lra_retrieval",
        "lra_pathfinder",
        "mnist",
    }
