import csv
import shutil

import pytest
import torch

from spaf_model import InputError
from spaf_train import load_checkpoint, pretrain, read_config
from spaf_train.trainer.compiling import check_compiler


def has_compiler():
    try:
        check_compiler(torch.device("cpu"))
    except InputError:
        return False
    return True


# torch's compiler imports a deprecated part of torch, and reads .grad of every tensor to see whether it has one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def losses(out):
    with (out / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def forget_the_end(out):
    """Leave a run as if it had been stopped after step 4."""
    (out / "run.json").unlink()
    (out / "checkpoints" / "step-000006.pt").unlink()


def test_compiled_steps_are_those_of_a_plain_run_and_either_continues_the_other(
    config_path, corpus, tmp_path, monkeypatch
):
    if not has_compiler():
        pytest.skip("there is no C++ compiler")
    from torch._dynamo.utils import counters

    # Other tests of this process may have compiled something.
    torch._dynamo.reset()
    counters.clear()

    # The one dropout inside the compiled part would draw other numbers on a CPU.
    plain = read_config(config_path, overrides=["model.mlp_dropout=0.0"])
    compiled = read_config(
        config_path,
        overrides=["model.mlp_dropout=0.0", "run.compile=true", "run.activation_checkpointing=true"],
    )
    assert plain.model.drop_path > 0
    assert plain.model.conv_dropout > 0
    pretrain(compiled, corpus.path, tmp_path / "compiled")
    # One graph for all blocks and every size of batch; evaluation is not compiled.
    assert counters["stats"]["unique_graphs"] == 1
    pretrain(plain, corpus.path, tmp_path / "plain")
    expected = losses(tmp_path / "plain")
    assert losses(tmp_path / "compiled") == pytest.approx(expected, rel=1e-4)
    states = [load_checkpoint(tmp_path / name / "checkpoints" / "step-000006.pt") for name in ("compiled", "plain")]
    assert states[0]["module"].keys() == states[1]["module"].keys()
    for config, name, other in ((plain, "compiled", "to-plain"), (compiled, "plain", "to-compiled")):
        shutil.copytree(tmp_path / name, tmp_path / other)
        forget_the_end(tmp_path / other)
        pretrain(config, corpus.path, tmp_path / other, resume=True)
        assert losses(tmp_path / other) == pytest.approx(expected, rel=1e-4)


def test_a_missing_compiler_is_said_before_the_first_step(config_path, corpus, tmp_path, monkeypatch):
    from torch._inductor import cpp_builder, exc

    def none():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(InputError, match=r"run\.compile needs a C\+\+ compiler.*set run\.compile to false"):
        pretrain(read_config(config_path, overrides=["run.compile=true"]), corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()
