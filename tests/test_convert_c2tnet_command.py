"""The converter's command: what it refuses and reads, and the repository that it writes."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import transforms
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import ClearConfig
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.scripts import convert_c2tnet_to_clear as converter
from clear_par.scripts.c2tnet_checkpoint import read_checkpoint

MICRO = {"image_size": (64, 32), "global_heads": 4}


@pytest.fixture(scope="module")
def micro() -> dict[str, torch.Tensor]:
    """Weights, input and output of the authors' code, at the smallest size."""
    return load_file(Path(__file__).parent / "fixtures" / "c2tnet_micro.safetensors")


@pytest.fixture(scope="module")
def weights(micro) -> dict[str, torch.Tensor]:
    return {name[3:]: tensor for name, tensor in micro.items() if name.startswith("sd.")}


@pytest.fixture
def checkpoint(weights, tmp_path) -> Path:
    save_file(weights, tmp_path / "micro.safetensors")
    return tmp_path / "micro.safetensors"


# ---- what is refused ------------------------------------------------------------------------


def without(name):
    return lambda tensors: tensors.pop(name)


def replaced(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


QKV = "backbone.stages.1.blocks.0.attn.w_msa.qkv.weight"
INDEX = "backbone.stages.0.blocks.1.attn.w_msa.relative_position_index"
MISFITS = {
    "missing": (without(QKV), [f"missing: {QKV} [48, 16]"]),
    "missing size": (
        without("backbone.patch_embed.projection.weight"),
        ["missing: backbone.patch_embed.projection.weight"],
    ),
    "missing and unused": (without("backbone.norm0.bias"), ["missing: backbone.norm0.bias [8]"]),
    "missing index": (without(INDEX), [f"missing: {INDEX} [49, 49]"]),
    "unexpected": (
        replaced("backbone.extra.weight", torch.zeros(3)),
        ["unexpected: backbone.extra.weight [3]"],
    ),
    "wrong shape": (
        replaced(QKV, torch.zeros(48, 15)),
        [f"wrong shape: {QKV} [48, 15], the others say [48, 16]"],
    ),
    "transposed": (
        replaced("classifier.logits.0.weight", torch.zeros(128, 26)),
        ["wrong shape: classifier.logits.0.weight [128, 26], the others say [26, 128]"],
    ),
    "several": (
        lambda t: (t.pop(QKV), t.pop("backbone.norm_1.bias"), t.update(more=torch.zeros(1))),
        ["3 that differ", f"missing: {QKV}", "missing: backbone.norm_1.bias", "unexpected: more"],
    ),
    "a plain transformer": (
        lambda t: [t.pop(name) for name in list(t) if not name.startswith("backbone.vit.")],
        ["missing: backbone.patch_embed.projection.weight", "missing: classifier.logits.0.bias"],
    ),
    "another index": (
        lambda t: t.update({INDEX: t[INDEX].T.contiguous()}),
        [f"standard order, got another in {INDEX}"],
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_keys_that_do_not_fit_are_listed_and_nothing_is_written(case, weights, tmp_path):
    change, messages = MISFITS[case]
    tensors = dict(weights)
    change(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"^`--checkpoint` must ") as caught:
        converter.convert(tmp_path / "other.safetensors", tmp_path / "clear", **MICRO)
    assert [text for text in messages if text not in str(caught.value)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_a_value_that_is_no_tensor_is_named(weights, tmp_path):
    torch.save({**weights, QKV: 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"not a tensor: {QKV}"):
        converter.convert(tmp_path / "other.pth", tmp_path / "clear", **MICRO)


OPTIONS = {
    "image": ({"image_size": (256, 128)}, r"must fit .*\[128, 32, 8, 2\].* 9 pos.* Got 256 128;"),
    "odd image": ({"image_size": (64, 33)}, r"Got 64 33; what fits: 32 64 or 64 32\.$"),
    "attributes": ({"attributes": "upar"}, "must name the 26 outputs .* got 40 in 'upar'"),
    "no data set": ({"attributes": "imagenet"}, "must be one of .*pa100k, peta, .*'imagenet'"),
    "heads": ({"global_heads": 5}, "`global_num_heads` must divide `global_embed_dim` 64, got 5"),
    "no heads": ({"global_heads": 0}, "`global_num_heads` must be positive, got 0"),
    "fusion": ({"fusion_heads": 7}, "`fusion_num_heads` must divide the fusion width 64, got 7"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_do_not_fit_are_one_error(case, checkpoint, tmp_path):
    changes, message = OPTIONS[case]
    with pytest.raises(ValueError, match=message):
        converter.convert(checkpoint, tmp_path / "clear", **{**MICRO, **changes})
    assert not (tmp_path / "clear").exists()


def test_a_folder_with_files_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "clear").mkdir()
    (tmp_path / "clear" / "mine").write_text("mine")
    with pytest.raises(ValueError, match="`--output` must be a new or an empty folder"):
        converter.convert(checkpoint, tmp_path / "clear", **MICRO)
    assert [path.name for path in (tmp_path / "clear").iterdir()] == ["mine"]


def test_nothing_is_left_when_writing_fails(checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(ClearProcessor, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        converter.convert(checkpoint, tmp_path / "clear", **MICRO)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


# ---- how checkpoints are read ---------------------------------------------------------------


def test_every_way_of_nesting_is_read(weights, tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    contents = {
        "plain": weights,
        "wrapped": wrapped,
        "published": {
            **{"state_dicts": wrapped, "state_dict_ema": weights},
            **{"epoch": "7", "metric": np.float64(0.81)},
        },
        "averaged": {"state_dict_ema": weights, "metric": np.float32(0.81)},
    }
    for name, content in contents.items():
        for new in (True, False):
            path = tmp_path / f"{name}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=new)
            got = read_checkpoint(path)
            assert got.keys() == weights.keys(), name
            assert all(torch.equal(got[key], tensor) for key, tensor in weights.items()), name


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("attacked"),))


def test_code_in_a_checkpoint_is_never_run(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dicts": weights, "metric": Attack()}, "evil.pth")
    with pytest.raises(ValueError, match="`--checkpoint` must be a torch file of plain tensors"):
        read_checkpoint(Path("evil.pth"))
    assert not Path("attacked").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\0\0\0\0\0\0\0{broken}"])
def test_files_that_are_none_are_named(content, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"`--checkpoint` must be .*file\.pth"):
        read_checkpoint(tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"`--checkpoint` must be .*FileNotFoundError"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_a_file_of_something_else_is_named(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="must hold a state dict, got Tensor"):
        read_checkpoint(tmp_path / "tensor.pth")


# ---- attributes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "name"), [(26, "pa100k"), (40, "upar"), (54, "rapv2"), (35, "peta"), (105, "peta")]
)
def test_the_count_tells_the_data_set(count, name):
    schema = converter.schema_for(None, count)
    assert (schema.name, schema.num_attributes) == (name, count)
    assert converter.schema_for(name, count) == schema


def test_the_35_of_peta_are_the_evaluated_ones():
    schema = converter.schema_for("peta", 35)
    assert schema.attributes[0] == "personalLess30"
    assert schema.attributes[34] == "upperBodyVNeck"


def test_names_are_those_of_the_annotation_files(shared_folder):
    import scipy.io

    with (shared_folder / "data/upar/val_gt.csv").open() as file:
        header = file.readline().strip().split(",")
    assert list(converter.read_schema("upar").attributes) == header[1:]
    annotation = scipy.io.loadmat(shared_folder / "data/pa100k/annotation.mat")
    names = [str(row[0][0]) for row in annotation["attributes"]]
    assert list(converter.read_schema("pa100k").attributes) == names
    selected = (shared_folder / "data/rapv2/selected_attribute_name.txt").read_text().split()
    assert list(converter.read_schema("rapv2").attributes) == selected


def test_a_count_of_no_data_set_gives_numbers_for_names():
    with pytest.warns(UserWarning, match="No known data set has the 3 attributes"):
        schema = converter.schema_for(None, 3)
    assert schema.attributes == ("attribute 0", "attribute 1", "attribute 2")


def test_a_count_of_several_data_sets_needs_the_option(tmp_path, monkeypatch):
    for name in ("one", "two"):
        AttributeSchema.from_names(["a", "b", "c"], name).to_json(tmp_path / f"{name}.json")
    monkeypatch.setattr(converter, "SCHEMAS", tmp_path)
    with pytest.raises(ValueError, match="must be given: both one and two have the 3"):
        converter.schema_for(None, 3)
    assert converter.schema_for("two", 3).name == "two"


def test_a_file_of_names_or_a_schema_says_what_outputs_mean(tmp_path):
    (tmp_path / "mine.txt").write_text("hat\n\n  long hair \nbag\n")
    schema = converter.schema_for(str(tmp_path / "mine.txt"), 3)
    assert (schema.name, schema.attributes) == ("mine", ("hat", "long hair", "bag"))
    schema.to_json(tmp_path / "mine.json")
    assert converter.schema_for(str(tmp_path / "mine.json"), 3) == schema
    with pytest.raises(ValueError, match=r"must name the 4 outputs .*, got 3 in "):
        converter.schema_for(str(tmp_path / "mine.txt"), 4)


# ---- the repository that is written ---------------------------------------------------------

LOAD = """
import json, sys
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor
source, inputs, image = sys.argv[1:]
model, info = AutoModel.from_pretrained(source, trust_remote_code=True, output_loading_info=True)
processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
logits = model(load_file(inputs)["x"]).logits
named = processor.decode(model(**processor(images=image, return_tensors="pt")).logits)
print(json.dumps({
    "logits": logits.tolist(), "missing": sorted(info["missing_keys"]),
    "unexpected": sorted(info["unexpected_keys"]), "named": named,
    "published": model.config.channel_attention_published_layout, "labels": model.config.id2label,
}))
"""


def run(arguments: list, folder: Path) -> str:
    variables = {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_command_writes_what_a_fresh_process_loads(weights, micro, repository, tmp_path):
    torch.save({"state_dicts": {f"module.{n}": t for n, t in weights.items()}}, tmp_path / "c.pth")
    save_file({"x": micro["in.x"]}, tmp_path / "x.safetensors")
    Image.new("RGB", (50, 90), "red").save(tmp_path / "crop.png")
    command = [repository / "scripts" / "convert_c2tnet_to_clear.py", "--checkpoint", "c.pth"]
    command += ["--output", "out/clear", "--image-size", 64, 32, "--global-heads", 4]
    printed = run(command, tmp_path)
    assert "backbone.tablocks.*.c_q.weight -> backbone.local_branch.layers.*." in printed
    assert "backbone.vit.fc_norm.weight -> dropped: " in printed
    assert "backbone.norm0.bias -> dropped: " in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clear"]
    answer = json.loads(
        run(["-c", LOAD, tmp_path / "out/clear", "x.safetensors", "crop.png"], tmp_path)
    )
    assert (answer["missing"], answer["unexpected"], answer["published"]) == ([], [], True)
    assert answer["labels"]["7"] == "Hat"
    assert "hat" in answer["named"][0]
    got = torch.tensor(answer["logits"])
    torch.testing.assert_close(got, micro["out.logits"], rtol=0, atol=1e-5)


def test_the_table_counts_every_key(checkpoint, weights, tmp_path):
    lines = converter.convert(checkpoint, tmp_path / "clear", **MICRO)[1:]
    counts = [int(line.split()[0]) for line in lines]
    values = [int(line.split()[1].replace(",", "")) for line in lines]
    assert sum(counts) == len(weights)
    assert sum(values) == sum(tensor.numel() for tensor in weights.values())


def test_pixels_are_those_of_the_authors_transform(checkpoint, tmp_path):
    """Resize with PIL, ToTensor, Normalize: bit for bit."""
    pixels = np.random.default_rng(0).integers(0, 256, (211, 83, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    transform = transforms.Compose(
        [
            transforms.Resize((64, 32)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )
    converter.convert(checkpoint, tmp_path / "clear", **MICRO)
    processor = ClearProcessor.from_pretrained(tmp_path / "clear", trust_remote_code=True)
    assert processor.query_kind == "hard"
    got = processor(images=image, return_tensors="pt").pixel_values[0]
    assert torch.equal(got, transform(image))


def test_the_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        converter.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for part in ("--attributes", "--image-size", "--global-heads", "AutoModel", "pa100k, peta"):
        assert part in text


def test_a_mistake_ends_the_command_with_its_reason(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        converter.main(["--checkpoint", str(checkpoint), "--output", str(tmp_path / "clear")])
    assert ended.value.code == 2
    assert "what fits: 32 64 or 64 32" in capsys.readouterr().err


# ---- the published size, for real -----------------------------------------------------------

CHECKSUMS = """
import json, sys, zlib
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps({name: zlib.crc32(t.numpy()) for name, t in model.state_dict().items()}))
"""


@pytest.mark.slow
def test_the_published_size_is_built_saved_and_loaded_bitwise(tmp_path):
    """1.6 GB in single precision, twice."""
    model = ClearModel(ClearConfig.preset("clear-base", num_labels=26))
    assert sum(parameter.numel() for parameter in model.parameters()) == 411_705_266 - 3_840
    model.save_pretrained(tmp_path / "base")
    expected = {name: zlib.crc32(tensor.numpy()) for name, tensor in model.state_dict().items()}
    del model
    assert json.loads(run(["-c", CHECKSUMS, tmp_path / "base"], tmp_path)) == expected
