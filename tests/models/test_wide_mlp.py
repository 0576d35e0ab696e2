"""Every member of a wide network against the torch module that stands alone, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hpo.config import MlpConfig
from hpo.models.activations import ACTIVATIONS
from hpo.models.layout import Layout, arrange
from hpo.models.mlp import HiddenLayer, InputLayer, Mlp, initial_state
from hpo.models.wide_mlp import WideMlp

INPUTS, OUTPUTS, BATCH = 11, 5, 16


def mixed_configs() -> list[MlpConfig]:
    """Every activation with and without batch norm, in depths 0 to 3, with uneven widths."""
    configs = [
        MlpConfig(widths=()),
        MlpConfig(widths=(), input_batch_norm=True),
        MlpConfig(widths=(4, 6), batch_norm=True, input_batch_norm=True),
        MlpConfig(widths=(7,), input_batch_norm=True, activation="selu"),
    ]
    for index, name in enumerate(ACTIVATIONS):
        for batch_norm in (False, True):
            depth = 1 + (index + batch_norm) % 3
            widths = tuple(3 + index + 2 * layer for layer in range(depth))
            configs.append(MlpConfig(widths=widths, activation=name, batch_norm=batch_norm))
    return [configs[index] for index in arrange(configs, [0] * len(configs))]


def build(
    configs: list[MlpConfig],
    *,
    dtype: torch.dtype = torch.float64,
    operand_dtype: torch.dtype | None = None,
) -> tuple[WideMlp, list[Mlp]]:
    wide = WideMlp(
        configs,
        INPUTS,
        OUTPUTS,
        batch=BATCH,
        device=torch.device("cpu"),
        dtype=dtype,
        operand_dtype=operand_dtype,
    )
    modules = []
    for member, config in enumerate(configs):
        generator = torch.Generator().manual_seed(member)
        state = initial_state(config, INPUTS, OUTPUTS, generator)
        wide.load(member, state)
        module = Mlp(config, INPUTS, OUTPUTS).double()
        module.load_state_dict(state, strict=False)
        modules.append(module)
    wide.parameters_changed()
    return wide, modules


def no_mask(depth: int) -> None:
    raise AssertionError("no member has dropout")


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
    return features, torch.randint(OUTPUTS, (BATCH,), generator=generator)


def grad_of_loss(logits: Tensor, labels: Tensor) -> Tensor:
    target = functional.one_hot(labels, OUTPUTS).t()
    return (logits.softmax(1) - target) / BATCH


def test_forward_gradients_and_running_statistics_are_those_of_torch() -> None:
    configs = mixed_configs()
    wide, modules = build(configs)
    for seed in range(3):
        features, labels = batch(seed)
        logits = wide.forward([features], no_mask).clone()
        wide.backward(grad_of_loss(logits, labels))
        for member, module in enumerate(modules):
            module.zero_grad()
            expected = module(features)
            torch.autograd.backward(functional.cross_entropy(expected, labels))
            torch.testing.assert_close(logits[member].t(), expected)
            gradients = wide.member_gradients(member)
            named = dict(module.named_parameters())
            assert gradients.keys() == named.keys()
            for name, parameter in named.items():
                torch.testing.assert_close(gradients[name], parameter.grad, msg=name)
            state = wide.state(member)
            for name, statistic in module.named_buffers():
                if "num_batches" not in name:
                    torch.testing.assert_close(state[name], statistic)


def test_prediction_uses_running_statistics() -> None:
    wide, modules = build(mixed_configs())
    features, _ = batch(0)
    wide.forward([features], no_mask)
    rows = torch.randn(37, INPUTS, dtype=torch.float64)
    logits = wide.predict([rows])
    for member, module in enumerate(modules):
        module.train()(features)
        torch.testing.assert_close(logits[member].t(), module.eval()(rows))


def noise_of(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(256, (INPUTS, rows), generator=generator, dtype=torch.uint8)


def prepare(module: Mlp, config: MlpConfig, features: Tensor, noise: Tensor) -> Tensor:
    """The inputs as a member should read them in training, by the book."""
    if config.input_batch_norm:
        assert isinstance(module.input, InputLayer)
        features = module.input.norm(features)
    zeros = round(config.input_dropout * 256)
    kept: Tensor = (noise.t().int() >= zeros).double() * 256 / (256 - zeros)
    return features * kept


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dropout_is_masked_forward_and_backward(name: str, norm: bool) -> None:
    config = MlpConfig(
        widths=(7, 6),
        activation=name,
        batch_norm=True,
        dropout=0.5,
        input_dropout=0.25,
        input_batch_norm=norm,
    )
    plain = MlpConfig(widths=(5,), activation=name, batch_norm=True)
    wide, modules = build([config, plain])
    drawn: list[Tensor] = []

    def fill(depth: int) -> None:
        mask, dropped = wide.masks[depth]
        assert list(dropped) == [0]
        rows, probability = dropped[0]
        assert probability == 0.5
        own = mask[rows]
        own.copy_(torch.bernoulli(torch.full_like(own, 0.5)) * 2)
        drawn.append(own.clone())

    features, labels = batch(1)
    noise = noise_of(BATCH, torch.Generator().manual_seed(1))
    assert wide.noisy
    logits = wide.forward([features], fill, [noise]).clone()
    wide.backward(grad_of_loss(logits, labels))

    hidden = prepare(modules[0], config, features, noise)
    for layer, mask in zip(modules[0].layers, drawn, strict=True):
        assert isinstance(layer, HiddenLayer)
        hidden = layer.activation(layer.norm(layer.linear(hidden))) * mask.t()
    expected = modules[0].output(hidden)
    torch.autograd.backward(functional.cross_entropy(expected, labels))
    torch.testing.assert_close(logits[0].t(), expected)
    torch.testing.assert_close(logits[1].t(), modules[1](features))
    for parameter_name, parameter in modules[0].named_parameters():
        torch.testing.assert_close(wide.member_gradients(0)[parameter_name], parameter.grad)


def test_bfloat16_operands_stay_near_float32() -> None:
    configs = [MlpConfig(widths=(32, 16), batch_norm=True), MlpConfig(widths=(24,))]
    exact, _ = build(configs, dtype=torch.float32)
    rough, _ = build(configs, dtype=torch.float32, operand_dtype=torch.bfloat16)
    features, labels = batch(2)
    features = features.float()
    logits = exact.forward([features], no_mask)
    rough_logits = rough.forward([features.bfloat16()], no_mask)
    torch.testing.assert_close(rough_logits, logits, rtol=0.05, atol=0.05)
    grad = grad_of_loss(logits, labels).float()
    exact.backward(grad)
    rough.backward(grad)
    distance = (exact.gradients - rough.gradients).norm() / exact.gradients.norm()
    assert 0 < distance < 0.15
    torch.testing.assert_close(
        rough.predict([features.bfloat16()]), exact.predict([features]), rtol=0.05, atol=0.05
    )


def test_columns_of_a_diverged_member_stay_its_own() -> None:
    configs = mixed_configs()
    wide, _ = build(configs)
    features, labels = batch(3)
    clean = wide.forward([features], no_mask).clone()
    sick = 2
    for parameter in wide.member_parameters(sick).values():
        parameter.fill_(float("nan"))
    logits = wide.forward([features], no_mask).clone()
    wide.backward(grad_of_loss(logits, labels))
    for member in range(len(configs)):
        healthy = all(g.isfinite().all() for g in wide.member_gradients(member).values())
        assert healthy == (member != sick)
        if member != sick:
            assert torch.equal(logits[member], clean[member])


def test_a_member_moves_from_one_population_to_another_unchanged() -> None:
    configs = mixed_configs()
    wide, _ = build(configs)
    features, _ = batch(4)
    expected = wide.forward([features], no_mask)[3].clone()
    alone, _ = build([configs[3]])
    wide2, _ = build(configs)
    alone.load(0, wide2.state(3))
    alone.parameters_changed()
    torch.testing.assert_close(alone.forward([features], no_mask)[0], expected)


def test_members_on_streams_of_their_own_read_their_own_batches() -> None:
    configs = [
        MlpConfig(widths=(6, 4), batch_norm=True),
        MlpConfig(widths=(3,), batch_norm=True),
        MlpConfig(widths=(5,)),
        MlpConfig(widths=()),
    ]
    streams = [0, 1, 1, 2]
    wide = WideMlp(
        configs,
        INPUTS,
        OUTPUTS,
        batch=BATCH,
        device=torch.device("cpu"),
        streams=streams,
        dtype=torch.float64,
    )
    _, modules = build(configs)
    for member, module in enumerate(modules):
        wide.load(member, module.state_dict())
    batches = [batch(seed) for seed in range(3)]
    logits = wide.forward([features for features, _ in batches], no_mask)
    labels = torch.stack([batches[stream][1] for stream in streams])
    one_hot = functional.one_hot(labels, OUTPUTS).transpose(1, 2)
    wide.backward((logits.softmax(1) - one_hot) / BATCH)
    for member, module in enumerate(modules):
        features, own_labels = batches[streams[member]]
        torch.autograd.backward(functional.cross_entropy(module(features), own_labels))
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(wide.member_gradients(member)[name], parameter.grad)
    assert wide.predict([batches[0][0]]).shape == (len(configs), OUTPUTS, BATCH)


CONFIGS = st.builds(
    MlpConfig,
    widths=st.lists(st.integers(1, 40), max_size=4).map(tuple),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    batch_norm=st.booleans(),
    initialization=st.sampled_from(["he", "xavier", "lecun"]),
    input_batch_norm=st.booleans(),
    input_dropout=st.sampled_from([0.0, 0.25, 0.5]),
)
MEMBERS = st.lists(st.tuples(CONFIGS, st.integers(0, 2)), min_size=1, max_size=7)


@settings(deadline=None, max_examples=60)
@given(members=MEMBERS, rows=st.integers(2, 24), outputs=st.integers(2, 6))
def test_any_mix_on_any_streams_is_that_of_torch(
    members: list[tuple[MlpConfig, int]], rows: int, outputs: int
) -> None:
    """One step of plain gradient descent, so that the second pass meets other numbers."""
    order = arrange([config for config, _ in members], [stream for _, stream in members])
    configs = [members[place][0] for place in order]
    streams = [members[place][1] for place in order]
    wide = WideMlp(
        configs,
        INPUTS,
        outputs,
        batch=rows,
        device=torch.device("cpu"),
        streams=streams,
        dtype=torch.float64,
    )
    modules = []
    for member, config in enumerate(configs):
        module = Mlp(config, INPUTS, outputs).double()
        wide.load(member, module.state_dict())
        modules.append(module)
    generator = torch.Generator().manual_seed(rows)
    for _ in range(2):
        wide.parameters_changed()
        features = [
            torch.randn(rows, INPUTS, generator=generator, dtype=torch.float64) for _ in range(3)
        ]
        weight = torch.randn(len(configs), outputs, rows, generator=generator, dtype=torch.float64)
        noise = [noise_of(rows, generator) for _ in range(3)]
        logits = wide.forward(features, no_mask, noise).clone()
        wide.backward(weight)
        for member, module in enumerate(modules):
            stream = streams[member]
            expected = prepare(module, configs[member], features[stream], noise[stream])
            for part in (*module.layers, module.output):
                expected = part(expected)
            torch.testing.assert_close(logits[member].t(), expected, rtol=1e-7, atol=1e-8)
            names, parameters = zip(*module.named_parameters(), strict=True)
            found = torch.autograd.grad((expected * weight[member].t()).sum(), parameters)
            for name, parameter, gradient in zip(names, parameters, found, strict=True):
                # Two rows apart by little make batch norm steep: errors grow with its slope.
                torch.testing.assert_close(
                    wide.member_gradients(member)[name], gradient, rtol=1e-6, atol=1e-7
                )
                with torch.no_grad():
                    parameter -= 0.01 * gradient
                wide.member_parameters(member)[name].copy_(parameter.detach())
    wide.parameters_changed()
    scored = [torch.randn(9, INPUTS, generator=generator, dtype=torch.float64) for _ in range(3)]
    logits = wide.predict(scored)
    for member, module in enumerate(modules):
        expected = module.eval()(scored[streams[member]])
        torch.testing.assert_close(logits[member].t(), expected, rtol=1e-6, atol=1e-7)


def test_inputs_that_hardly_change_are_scored_with_all_their_digits() -> None:
    """Their scale is in the hundreds, so what is folded into the weights must not swallow them."""
    config = MlpConfig(widths=(32,), input_batch_norm=True)
    exact, _ = build([config], dtype=torch.float64)
    single, _ = build([config], dtype=torch.float32)
    rough, _ = build([config], dtype=torch.float32, operand_dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64).bfloat16()
    features[:, 2:6] = -0.875  # a border that is black everywhere
    features[0, 5] += 0.125
    for _ in range(200):
        exact.forward([features.double()], no_mask)
        single.forward([features.float()], no_mask)
        rough.forward([features], no_mask)
    expected = exact.predict([features.double()])
    found = single.predict([features.float()])
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rough.predict([features]).double(), expected, rtol=0.1, atol=0.1)


def test_wide_layers_with_bfloat16_operands_follow_float32_over_steps() -> None:
    """At widths that a search uses; the master weights keep what bfloat16 would round away."""
    config = MlpConfig(widths=(256, 128), batch_norm=True)
    plain = MlpConfig(widths=(192,), activation="gelu")
    exact, _ = build([config, plain], dtype=torch.float32)
    rough, _ = build([config, plain], dtype=torch.float32, operand_dtype=torch.bfloat16)
    start = exact.parameters.clone()
    for seed in range(20):
        features, labels = batch(seed)
        for wide, operand in ((exact, features.float()), (rough, features.bfloat16())):
            logits = wide.forward([operand], no_mask)
            wide.backward(grad_of_loss(logits, labels).float())
            # 1e-4 of a weight near 1 is below bfloat16's spacing of 0.0078.
            wide.parameters.sub_(wide.gradients, alpha=1e-3)
            wide.parameters_changed()
    moved = (exact.parameters - start).norm()
    assert (rough.parameters - exact.parameters).norm() < 0.15 * moved
    assert rough.parameters.dtype == torch.float32
    assert rough.state(0)["output.weight"].dtype == torch.float32


def test_arranged_members_make_few_runs() -> None:
    """Batch norm lies first, and members of one stream and activation are neighbours."""
    names = ["relu", "gelu", "silu"]
    configs = [
        MlpConfig(widths=(4,), activation=names[index % 3], batch_norm=index % 2 == 0)
        for index in range(24)
    ]
    streams = [index % 4 // 2 for index in range(24)]
    order = arrange(configs, streams)
    assert sorted(order) == list(range(24))
    keys = [(not configs[i].batch_norm, streams[i], configs[i].activation) for i in order]
    assert keys == sorted(keys)
    equal = [i for i in order if keys[order.index(i)] == keys[0]]
    assert equal == sorted(equal)
    arranged = [configs[i] for i in order]
    layout = Layout(arranged, INPUTS, OUTPUTS, [streams[i] for i in order])
    assert layout.layers[0].normed == 12 * 4
    assert len(layout.layers[0].products) == 4
    assert len(layout.layers[0].runs) <= 12
    spans = [span for own in layout.parameters for span in own.values()]
    covered = sorted(place for s in spans for place in range(s.start, s.start + s.size))
    assert covered == list(range(layout.trained))  # every number has one owner


def test_predicting_leaves_a_training_pass_as_it_is() -> None:
    """Evaluation between a forward pass and its backward pass must not touch the buffers."""
    wide, _ = build(mixed_configs())
    features, labels = batch(5)
    grad = grad_of_loss(wide.forward([features], no_mask).clone(), labels)
    wide.backward(grad)
    expected, statistics = wide.gradients.clone(), wide.statistics.clone()
    wide2, _ = build(mixed_configs())
    wide2.forward([features], no_mask)
    wide2.predict([torch.randn(BATCH, INPUTS, dtype=torch.float64)])
    wide2.backward(grad)
    assert torch.equal(wide2.gradients, expected)
    assert torch.equal(wide2.statistics, statistics)
