"""TensorRT engines from the ladder down to the buffers, with a stand-in for NVIDIA's libraries only (fake_gpu.py)."""

import hashlib
import json
import logging
import re
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from depth_pose_ros import cli, engines
from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines import tensorrt
from depth_pose_ros.engines.cache import cache_folder
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.manifest import find_model
from depth_pose_ros.errors import EngineError

pytest.importorskip("onnx", reason="the stand-in reads graphs with onnx")
from fake_gpu import Machine, install
from toy_models import (
    HEIGHT,
    WIDTH,
    difference_model,
    mean_model,
    random_images,
    with_half_and_stored_images,
)

SIZE = (96, 64)  # not that of the stored images
LIBRARIES = ("tensorrt", "tensorrt_rtx", "cuda", "cuda.bindings", "cuda.bindings.runtime")


class Heard(engines.Listener):
    """Keeps what it hears."""

    def __init__(self):
        self.told, self.warned, self.worked = [], [], []

    def info(self, text):
        self.told.append(text)

    def warning(self, text):
        self.warned.append(text)

    def busy(self, text):
        self.worked.append(text)


@pytest.fixture
def machine(monkeypatch):
    """A Jetson with TensorRT 10.3."""
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    result = Machine()
    install(result)
    return result


@pytest.fixture
def models(tmp_path):
    """By task."""
    made = difference_model(tmp_path), mean_model(tmp_path)
    return {model.task: with_half_and_stored_images(model) for model in made}


@pytest.fixture
def start(tmp_path, models):
    """Open a network as a node does at its start; -> (network, what it said)."""

    def start(task="depth", backend="tensorrt", size=SIZE, model=None, **config):
        heard = Heard()
        config = EngineConfig(**{"engine_cache": str(tmp_path / "engines"), **config})
        network = NetworkFlow if task == "flow" else NetworkDepth
        return network(model or models[task], *size, backend, 1, config, heard), heard

    return start


def kept(tmp_path, ending):
    return sorted((tmp_path / "engines").glob(f"*.{ending}"))


# ------------------------------------------------------------------------------------------------------- it computes
@pytest.mark.parametrize("graph", [False, True], ids=["launched", "recorded"])
@pytest.mark.parametrize("task", ["flow", "depth"])
def test_engine_gives_what_the_cpu_gives(machine, start, task, graph):
    network, heard = start(task, engine_cuda_graph=graph)
    assert network.backend == "TensorRT 10.3.0 fp16 on Orin" and network.backend_reasons == ()
    assert heard.warned == []
    on_cpu, _ = start(task, "cpu")
    before = machine.launches
    for shift in (0, 7):
        images = [np.roll(image, shift, 1) for image in random_images(len(network.manifest.inputs.names), SIZE)]
        expected = on_cpu.outputs(*images)
        for name, output in network.outputs(*images).items():
            np.testing.assert_allclose(output, expected[name], atol=1e-6)
    assert machine.launches == before + 2


def test_every_graph_of_the_shipped_models_can_be_opened(machine, tmp_path):
    config = EngineConfig(engine_cache=str(tmp_path))
    for task in ("flow", "depth"):
        manifest = find_model("default", task)
        width, height = 4 * manifest.inputs.multiple_of, 2 * manifest.inputs.multiple_of
        whole = (NetworkFlow if task == "flow" else NetworkDepth)(manifest, width, height, "cpu", 1)
        images = random_images(len(manifest.inputs.names), (width, height))
        expected = whole.outputs(*images).values()
        tensors = [whole._prepare(image) for image in images]
        runner = tensorrt.open_engine(manifest.graph, width, height, "fp32", config, Heard())
        for output, wanted in zip(runner.run(*tensors), expected, strict=True):
            assert output.shape[1:] == wanted.shape
        if manifest.parts:
            opened = [tensorrt.open_engine(part, width, height, "fp32", config, Heard()) for part in manifest.parts]
            features = [array for tensor in tensors for array in opened[0].run(tensor)]
            for output, wanted in zip(opened[1].run(*features), expected, strict=True):
                assert output.shape[1:] == wanted.shape


def test_two_engines_answer_several_threads_at_once(machine, start):
    networks = start("flow")[0], start("depth")[0]
    runners = [network._runner for network in networks]
    tensors = [np.random.default_rng(i).random((1, 3, *SIZE[::-1]), np.float32) for i in range(6)]
    expected = [(runners[0].run(tensors[i], tensors[i - 1]), runners[1].run(tensors[i])) for i in range(6)]
    failures = []

    def work(turn):
        for i in 5 * [*range(turn, 6), *range(turn)]:
            got = runners[0].run(tensors[i], tensors[i - 1]), runners[1].run(tensors[i])
            for outputs, wanted in zip(got, expected[i]):
                failures.extend((turn, i) for a, b in zip(outputs, wanted) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_of_both_sides_is_given_back(machine, start):
    memory = sys.modules["cuda.bindings.runtime"].sides
    network, _ = start()
    assert len(memory["device"]) == len(memory["host"]) == 2  # image, value
    del network
    assert memory == {"device": {}, "host": {}}


# ------------------------------------------------------------------------------------------------------- built once
def test_first_start_builds_and_the_second_does_not(machine, start, tmp_path):
    _, heard = start()
    assert machine.builds == 1
    assert any("there is no TensorRT engine for mean (fp16, 96x64)" in text for text in heard.told)
    assert any("agrees with its stored outputs" in text for text in heard.told)
    (plan,), (description,) = kept(tmp_path, "plan"), kept(tmp_path, "json")
    assert plan.stem == description.stem and plan.stem.startswith("mean.fp16.96x64.")
    assert json.loads(description.read_text())["key"]["gpu"] == "Orin"
    assert kept(tmp_path, "cache") and kept(tmp_path, "reference.npz")
    _, heard = start()
    assert machine.builds == 1
    assert [text for text in heard.told if "build" in text] == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tensorrt": "10.7.0"}, "TensorRT was tensorrt 10.3.0 and is tensorrt 10.7.0"),
        ({"driver": 13020}, "CUDA was 12.6 and is 13.2"),
        ({"gpu": "Orin NX"}, "the GPU was Orin and is Orin NX"),
        ({"gpu": "Thor", "capability": (11, 0)}, "the GPU was Orin and is Thor; its compute capability was 8.7 and is"),
    ],
)
def test_engine_of_another_machine_is_named_and_one_for_this_is_built(machine, start, tmp_path, change, sentence):
    start()
    for name, value in change.items():
        setattr(machine, name, value)
    install(machine)
    with pytest.raises(
        EngineError, match=r"stale: .* engine_rebuild is never; run `depth_pose build-engines`"
    ) as error:
        start(engine_rebuild="never")
    assert sentence in str(error.value)
    assert machine.builds == 1
    network, heard = start()
    assert machine.builds == 2 and any("is stale: " in text and sentence in text for text in heard.told)
    assert machine.tensorrt in network.backend and machine.gpu in network.backend
    start()
    assert machine.builds == 2
    for name, value in vars(Machine()).items():  # and the old machine still has its own
        if name in change:
            setattr(machine, name, value)
    install(machine)
    start(engine_rebuild="never")


def test_engine_of_another_network_file_is_stale(machine, start, tmp_path):
    start()
    (description,) = kept(tmp_path, "json")
    content = json.loads(description.read_text())
    content["key"]["onnx"] = "0" * 64
    description.rename(description.with_name("mean.fp16.96x64.000000000000.json"))
    description.with_name("mean.fp16.96x64.000000000000.json").write_text(json.dumps(content))
    _, heard = start()
    assert any("the ONNX file was 000000000000... and is" in text for text in heard.told)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped byte": (flip, "its bytes have changed since it was written"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:777]), "it has 777 bytes of 20000"),
    "empty": (lambda path: path.write_bytes(b""), "it has 0 bytes of 20000"),
    "plan gone": (lambda path: path.unlink(), "cannot be read: No such file"),
    "description cut": (
        lambda path: path.with_suffix(".json").write_text('{"key": {'),
        "the description of the engine",
    ),
    "description empty": (lambda path: path.with_suffix(".json").write_text("{}"), "the description of the engine"),
    "description gone": (lambda path: path.with_suffix(".json").unlink(), "there is no TensorRT engine"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_engine_is_named_and_built_again(machine, start, tmp_path, damage):
    start()
    (plan,) = kept(tmp_path, "plan")
    spoil, sentence = DAMAGE[damage]
    spoil(plan)
    with pytest.raises(EngineError, match="engine_rebuild is never") as error:
        start(engine_rebuild="never")
    assert sentence in str(error.value)
    _, heard = start()
    assert any(sentence in text for text in heard.told) and machine.builds == 2
    start(engine_rebuild="never")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"garbage", "TensorRT 10.3.0 cannot read it: Magic tag"), (None, r"it takes image \(1, 3, 32, 64\), expected")],
)
def test_engine_that_does_not_load_or_has_another_size_is_built_again(machine, start, tmp_path, content, sentence):
    """Intact, with the right description: a library that changed behind its version, or files that were renamed."""
    start(size=(64, 32))
    (other,) = kept(tmp_path, "plan")
    content = content or other.read_bytes()
    start()
    (plan,) = [path for path in kept(tmp_path, "plan") if path != other]
    plan.write_bytes(content)
    description = json.loads(plan.with_suffix(".json").read_text())
    description["plan"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    plan.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(EngineError, match=f"{sentence}.*engine_rebuild is never"):
        start(engine_rebuild="never")
    start()
    assert machine.builds == 3


def test_folder_that_cannot_be_written_costs_a_warning_not_the_engine(machine, start, tmp_path):
    (tmp_path / "file").write_text("")
    network, heard = start(engine_cache=str(tmp_path / "file" / "engines"))
    assert network.backend.startswith("TensorRT")
    assert len(heard.warned) == 1 and "set engine_cache to a folder that can be written" in heard.warned[0]


def test_cache_is_in_the_users_cache_folder_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("") == tmp_path / "depth_pose_ros" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/robot")
    assert str(cache_folder("")) == "/home/robot/.cache/depth_pose_ros/engines"
    assert str(cache_folder("~/engines")) == "/home/robot/engines"


# --------------------------------------------------------------------------------------------------------- progress
def test_build_tells_how_far_it_is_and_for_how_long(machine, start, monkeypatch):
    monkeypatch.setattr(tensorrt, "TICK", 0.05)
    monkeypatch.setattr(tensorrt, "TELL_EVERY", 0.2)
    machine.build_seconds = 1.0
    _, heard = start()
    what = r"building the engine mean \(fp16, 96x64\) with TensorRT 10\.3\.0: \d+ s"
    assert all(re.match(what, line) for line in heard.worked)
    assert re.fullmatch(what + r" \(building engine, \d+ of 50\)", heard.worked[-1])
    logged = [line for line in heard.told if re.match(what, line)]
    assert 1 <= len(logged) < len(heard.worked)
    assert any("5.0 GB of the memory of Orin are free" in line for line in heard.told)


@pytest.mark.parametrize("error", [EngineError, KeyboardInterrupt])
def test_build_ends_soon_when_it_is_interrupted(machine, models, tmp_path, monkeypatch, error):
    class Leaving(Heard):
        def busy(self, text):
            raise error("the node is being closed")

    monkeypatch.setattr(tensorrt, "TICK", 0.02)
    machine.build_seconds = 100.0
    config = EngineConfig(engine_cache=str(tmp_path / "engines"))
    with pytest.raises(error, match="the node is being closed"):
        NetworkDepth(models["depth"], *SIZE, "tensorrt", 1, config, Leaving())
    assert kept(tmp_path, "plan") == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("build")]


# ------------------------------------------------------------------------------------------------ it proves itself
@pytest.mark.parametrize("wrong", ["nan", "shifted"])
@pytest.mark.parametrize("task", ["flow", "depth"])
def test_wrong_fp16_falls_back_to_fp32_with_one_warning(machine, start, task, wrong):
    machine.wrong = {"fp16": wrong}
    for _ in range(2):  # at the first start and at the next
        network, heard = start(task)
        assert network.backend == "TensorRT 10.3.0 fp32 on Orin"
        (warning,) = heard.warned
        assert "fp16 on Orin DISAGREES with its stored outputs" in warning
        assert ("values are not finite" if wrong == "nan" else "limit") in warning
        assert any("fp16 on Orin DISAGREES" in reason for reason in network.backend_reasons)
    assert machine.builds == 2


def test_wrong_fp32_is_refused_and_auto_goes_on_to_the_cpu(machine, start):
    machine.wrong = {"fp16": "nan", "fp32": "shifted"}
    with pytest.raises(EngineError, match=r"no backend can run mean: .*fp16.*DISAGREES.*fp32.*DISAGREES"):
        start()
    network, heard = start(backend="auto")
    assert network.backend == "onnxruntime CPUExecutionProvider"
    assert len(heard.warned) == 2
    assert [reason.split(":")[0] for reason in network.backend_reasons] == ["tensorrt", "tensorrt", "cuda"]


def test_precision_that_is_asked_for_is_the_only_one(machine, start):
    assert start(engine_precision="fp32")[0].backend == "TensorRT 10.3.0 fp32 on Orin"
    machine.wrong = {"fp16": "nan"}
    with pytest.raises(EngineError, match="fp16 on Orin DISAGREES"):
        start(engine_precision="fp16")


def test_model_without_an_fp16_file_runs_in_fp32(machine, models, start):
    model = replace(models["depth"], files={"fp32": models["depth"].files["fp32"]})
    network, heard = start(model=model)
    assert network.backend == "TensorRT 10.3.0 fp32 on Orin" and heard.warned == []
    assert network.backend_reasons == ("tensorrt: mean has no fp16 file, only fp32; export it again",)


def test_model_without_stored_images_runs_after_a_warning(machine, models, start):
    _, heard = start(model=replace(models["depth"], self_check=None))
    assert len(heard.warned) == 1 and "is not checked: the model has no stored images" in heard.warned[0]


def test_engine_of_the_stored_images_own_size_is_compared_with_what_is_stored(machine, start, tmp_path):
    """No detour over the CPU of this machine."""
    _, heard = start(size=(WIDTH, HEIGHT))
    assert kept(tmp_path, "reference.npz") == []
    assert any("agrees" in text for text in heard.told)


def test_cpu_that_disagrees_with_what_is_stored_judges_nobody(machine, models, start):
    stored = dict(np.load(models["depth"].self_check))
    np.savez(models["depth"].self_check, **{**stored, "value": stored["value"] + 1})
    with pytest.raises(EngineError, match=r"mean on the CPU DISAGREES .* cannot judge another backend"):
        start()


@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(b"")])
def test_reference_that_is_damaged_is_made_again(machine, start, tmp_path, spoil):
    start()
    (path,) = kept(tmp_path, "reference.npz")
    before = path.read_bytes()
    spoil(path)
    _, heard = start()
    assert any("agrees" in text for text in heard.told)
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------- why it cannot be used
def test_what_is_missing_is_named(machine, start, monkeypatch):
    def reason():
        network, _ = start(backend="auto")
        assert network.backend == "onnxruntime CPUExecutionProvider"
        first, *others = network.backend_reasons
        assert [other.split(":")[0] for other in others] == ["cuda"]  # one sentence for both precisions
        return first

    machine.has_gpu = False
    assert "no NVIDIA GPU can be used: cudaGetDeviceCount failed: cudaErrorNoDevice (100)" in reason()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert "pip install 'cuda-python==12.6.*' for CUDA 12 (JetPack 6)" in reason()
    sys.modules["tensorrt"].__version__ = "8.6.1"
    assert "TensorRT 8.6.1 is too old; 10.3 or newer is needed" in reason()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT is not installed (tensorrt: " in reason() and "tensorrt_rtx: " in reason()
    with pytest.raises(EngineError, match=r"no backend can run mean: tensorrt: TensorRT is not installed"):
        start()


def test_builder_that_does_not_start_is_told_in_its_own_words(machine, start, monkeypatch):
    start()
    monkeypatch.setattr(tensorrt.Cuda, "gpu", lambda self: tensorrt.Gpu("Orin", "8.7", "12.4"))
    machine.has_gpu = False
    with pytest.raises(EngineError, match="cannot build here: CUDA initialization failure with error: 35"):
        start()


def test_graph_that_tensorrt_does_not_take_is_refused_with_the_node(machine, start):
    machine.refuses = "AveragePool"
    with pytest.raises(EngineError, match=r"cannot take mean\.fp16\.onnx: node '' \(AveragePool\): no such"):
        start()


def test_names_that_differ_from_the_manifest_are_refused(machine, models, tmp_path):
    graph = models["depth"].graph
    config = EngineConfig(engine_cache=str(tmp_path))
    with pytest.raises(EngineError, match=r"takes \['image'\], its manifest says \['left'\]"):
        tensorrt.open_engine(replace(graph, inputs={"left": 1}), *SIZE, "fp32", config, Heard())
    with pytest.raises(EngineError, match=r"gives \['value'\], its manifest says \['far'\]"):
        tensorrt.open_engine(replace(graph, outputs=("far",)), *SIZE, "fp32", config, Heard())


def test_without_a_listener_warnings_reach_pythons_log(machine, models, tmp_path, caplog):
    machine.wrong = {"fp16": "nan"}
    config = EngineConfig(engine_cache=str(tmp_path / "engines"))
    with caplog.at_level(logging.WARNING, "depth_pose_ros"):
        engines.load_depth(models["depth"].path, *SIZE, "tensorrt", 1, config)
    assert "DISAGREES" in caplog.text


# ------------------------------------------------------------------------------------------------------ the command
def test_command_builds_checks_and_says_what_it_would_build(machine, models, tmp_path, capsys):
    options = ["--flow-model", str(models["flow"].path), "--depth-model", str(models["depth"].path)]
    build = ["build-engines", *options, "--engine-cache", str(tmp_path / "engines"), "--image-size", "80x48"]
    assert cli.main([*build, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for name in ("difference", "mean"):
        for precision in ("fp16", "fp32"):
            assert f"{name} ({precision}, 60x36): {tmp_path}/engines/{name}.{precision}.60x36." in said
    assert "gpu:                Orin\n" in said and said.count("there is no TensorRT engine") == 4
    assert kept(tmp_path, "plan") == []

    machine.wrong = {"fp16": "nan"}
    assert cli.main(build) == 0
    said = capsys.readouterr()
    assert "mean is ready at 60x36 on TensorRT 10.3.0 fp32 on Orin" in said.out
    assert said.err.count("WARNING: ") == 2 and "DISAGREES" in said.err
    assert machine.builds == 4
    assert cli.main([*build, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("is there\n") == 4

    machine.wrong = {"fp16": "nan", "fp32": "nan"}
    assert cli.main([*build, "--build-only", "--engine-precision", "fp16"]) == 0  # runs nothing, finds nothing
    assert cli.main(build) == 2
    assert "no backend can run difference" in capsys.readouterr().err
    assert machine.builds == 4
