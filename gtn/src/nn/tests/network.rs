//! Text, families, populations and suites.

use crate::nn::network::{Scheme, Start};
use crate::nn::{Family, Init, Learners, Network, ParamSpec, Population, Suite, init};
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

fn round_trip(network: &Network) {
    let text = network.to_string();
    let again: Network = text
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(again, *network, "{text}");
}

#[test]
fn text_comes_back() {
    for text in [
        "conv 16 3x3 | batch | relu | max 2 | dense",
        "init pytorch 0.5 | weight_norm off | dense 3 no_bias | bias | tanh | dense",
        "conv 8 1x3 stride 2 pad 1x0 dilation 2x1 groups 2 no_bias | depthwise 5x5 stride 1x2 no_bias | mean | dense",
        "conv 8 2x2 | conv 8 2x2 pad 0x1x1x0 | avg 3x2 stride 1 pad 1 | flatten | none | mean_only | group 4 | layer | dense",
        "add(conv 4 3x3 | instance) | add(input; conv 4 1x1; input) | add(input; input) | concat(relu; leaky 0.3) | dense 10",
        "dropout 0.5 | conv 4 3x3 | add(conv 4 3x3 | drop_path 0.25) | dropout 0 | dense",
        "add(add(relu | concat(gelu)); silu) | dense",
        "graph(n1 = conv 4 3x3; n2 = add(n1 | relu; input); concat(n1; n2 | zero)) | dense",
        "graph(a = input; b = graph(c = a | relu; add(c; a)); b | max 2) | dense",
    ] {
        let network: Network = text.parse().unwrap();
        assert_eq!(network.to_string(), text);
        round_trip(&network);
    }
    let short: Network = "2 x (conv 4|relu)|add( tanh )\n| dense".parse().unwrap();
    assert_eq!(
        short.to_string(),
        "conv 4 3x3 | relu | conv 4 3x3 | relu | add(tanh) | dense"
    );
    for family in Family::all() {
        round_trip(&family.middle().unwrap().network);
    }
}

#[test]
fn absurd_sizes_have_the_greatest_count() {
    let network: Network = "conv 16384 1 | conv 16384 1 | mean | dense"
        .parse()
        .unwrap();
    let learner = network.learner([16384, 16384, 1], 10).unwrap();
    assert_eq!(learner.layers()[1].multiply_adds, 1 << 56);
    let network: Network = "conv 16384 3 | conv 16384 301 | mean | dense"
        .parse()
        .unwrap();
    let learner = network.learner([16384, 16384, 1], 10).unwrap();
    assert_eq!(learner.layers()[1].multiply_adds, usize::MAX);
    assert_eq!(learner.multiply_adds(), usize::MAX);
}

#[test]
fn mistakes_in_a_text_name_the_layer() {
    let deep = "add(".repeat(20);
    for (text, wanted) in [
        ("", "a layer is needed at the end"),
        ("relu | ", "a layer is needed at the end"),
        ("| relu", "a layer is needed before `|`"),
        (
            "convolution 3",
            "at `convolution 3`: there is no such layer, but conv,",
        ),
        ("conv", "at `conv`: a number is needed"),
        ("conv 0", "at `conv 0`: `0` is no number from 1 to 16384"),
        ("conv 99999999999999999999", "is no number from 1"),
        (
            "conv 8 3x3x3",
            "at `conv 8 3x3x3`: a number or two, as 3 or 1x3, is needed",
        ),
        ("conv 8 stride", "at `conv 8 stride`: `` is no number"),
        ("conv 8 pad 1x2x3", "one, two or four numbers are needed"),
        ("conv 8 bias", "at `conv 8 bias`: `bias` says nothing here"),
        (
            "conv 8 | conv w1",
            "at `conv w1`: this stands for a choice in families only",
        ),
        (
            "norm",
            "at `norm`: this stands for a choice in families only",
        ),
        ("max", "at `max`: `` is no number"),
        (
            "max 2 dilation 2",
            "a window, stride and pad are all that it has",
        ),
        ("depthwise 3 groups 2", "it has as many groups as channels"),
        ("dropout", "at `dropout`: a probability from 0 to below 1"),
        ("drop_path 1", "at `drop_path 1`: a probability from 0 to"),
        ("leaky 2", "`leaky 2`: a slope from 0 to 1"),
        ("group 0", "from 1 to 1024 groups"),
        ("relu 3", "there is no activation `relu 3`"),
        ("add relu", "at `add`: branches in `(…)` are needed"),
        ("add(relu", "at `add ( relu`: `)` is needed at its end"),
        ("relu)", "`)` without its `(`"),
        ("relu; tanh", "`;` without its `(`"),
        ("3 (relu)", "`x (…)` is needed after how often"),
        ("1000 x (1000 x (1000 x (relu)))", "more than 1000 layers"),
        (
            "init kaiming | relu",
            "there is no init `kaiming`, but kaiming_normal,",
        ),
        ("init pytorch", "layers are needed after it"),
        (
            "relu | init pytorch",
            "at `init pytorch`: there is no such layer",
        ),
        ("weight_norm maybe | relu", "`on` or `off` is needed"),
        (&deep, "more than 16 branches in branches"),
        ("graph relu", "at `graph`: nodes in `(…)` are needed"),
        (
            "graph(a = relu)",
            "at `a = relu`: `;` and the graph's result are needed after it",
        ),
        (
            "graph(a = relu; a = relu; a)",
            "at `a =`: there is a node of that name",
        ),
        (
            "graph(a = b; b = relu; a)",
            "at `b`: there is no such layer",
        ),
        ("graph(a = relu; a) | a", "at `a`: there is no such layer"),
        (
            "graph(relu = conv 3; relu)",
            "at `relu =`: a node's name is small letters",
        ),
        (
            "graph(w1 = conv 3; w1)",
            "at `w1 =`: a node's name is small letters",
        ),
        (
            "graph(a = relu; conv 3 | a)",
            "at `a`: a node's result stands before all other layers",
        ),
        (
            "graph(a = relu; 2 x (a | tanh))",
            "at `a`: a node's result stands before all other layers",
        ),
    ] {
        let error = text.parse::<Network>().unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{text}: {error}");
    }
}

#[test]
fn built_in_families_populations_and_suites_are_sound() {
    for family in Family::all() {
        assert_eq!(
            family.usual.len(),
            family.widths.layers(),
            "{}",
            family.name
        );
        for image in [[28, 28, 1], [32, 32, 3]] {
            let network = family.network(&family.usual, family.norms[0]).unwrap();
            let learner = network.learner(image, 10).unwrap();
            assert!(learner.multiply_adds() > 0);
            family
                .widest()
                .unwrap()
                .network
                .learner(image, 100)
                .unwrap();
        }
    }
    let suite = Suite::parse("held-out").unwrap();
    assert!(suite.networks.len() >= 10);
    let Learners::Population(mixed, _) = "mixed".parse().unwrap() else {
        panic!("mixed is a population")
    };
    let rng = &mut StdRng::seed_from_u64(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let drawn = mixed.draw(rng).unwrap();
        round_trip(&drawn.network);
        drawn.network.learner([28, 28, 1], 10).unwrap();
        let held_out = suite
            .networks
            .iter()
            .find(|(_, network)| *network == drawn.network);
        assert_eq!(held_out, None);
        seen.insert(drawn.family);
    }
    assert_eq!(seen.len(), mixed.members().len());
    let initialisations = Suite::parse("initialisations").unwrap();
    assert_eq!(initialisations.networks.len(), 16);
    for (name, network) in suite.networks.iter().chain(&initialisations.networks) {
        round_trip(network);
        let learner = network.learner([28, 28, 1], 10).unwrap();
        assert!(
            learner.multiply_adds() < 12_000_000,
            "{name}: {}",
            learner.multiply_adds()
        );
    }
}

#[test]
fn draws_stay_in_their_ranges_and_reach_all_choices() {
    let text = "
        [[learner]]
        layers = ['depth x (conv w1 | norm | act)', 'mean', 'dense']
        widths = '3-5'
        depth = '0-2'
        norm = ['batch', 'group 2']
        activation = ['tanh', 'gelu', 'leaky 0.5']
        init = ['orthogonal', 'xavier_uniform 2']
        weight_norm = [true, false]
    ";
    let population = Population::from_toml("test", text).unwrap();
    let rng = &mut StdRng::seed_from_u64(5);
    let drawn: Vec<String> = (0..400)
        .map(|_| population.draw(rng).unwrap().network.to_string())
        .collect();
    for part in [
        "conv 3",
        "conv 5",
        "batch",
        "group 2",
        "tanh",
        "gelu",
        "leaky 0.5",
        "orthogonal",
        "xavier_uniform 2",
        "weight_norm off",
    ] {
        let share = drawn.iter().filter(|text| text.contains(part)).count();
        assert!((20..380).contains(&share), "{part}: {share} of 400");
    }
    assert!(
        drawn
            .iter()
            .any(|text| text.ends_with("orthogonal | mean | dense"))
    );
    assert!(
        drawn
            .iter()
            .all(|text| !text.contains("conv 6") && text.matches("conv").count() <= 2)
    );
}

#[test]
fn mistakes_in_a_file_name_the_learner() {
    for (text, wanted) in [
        ("", "file: no learner"),
        ("[[learner]]\nfamily = 'base", "file: line 2: "),
        ("[[learner]]\nfamliy = 'base'", "unknown field `famliy`"),
        (
            "[[learner]]",
            "file: learner number 1: either `family` or `layers`",
        ),
        (
            "[[learner]]\nfamily = 'bases'",
            "learner bases: there is no family `bases`, but base_fc,",
        ),
        (
            "[[learner]]\nname = 'a'\nlayers = 'conv x | dense'",
            "file: learner a: network, at `conv x`",
        ),
        (
            "[[learner]]\nfamily = 'base'\nwidths = [3]",
            "learner base: 2 widths wanted, 1 given",
        ),
        (
            "[[learner]]\nfamily = 'base'\nnorm = 'bath'",
            "learner base: norm: there is no norm `bath`",
        ),
        (
            "[[learner]]\nfamily = 'base'\nactivation = []",
            "activation: a value is needed",
        ),
        (
            "[[learner]]\nfamily = 'base'\nweight = -1",
            "weight -1 is not above 0",
        ),
        (
            "[[learner]]\nfamily = 'vgg'\ndepth = '3-2'",
            "depth `3-2`: a number or a range",
        ),
        (
            "[[learner]]\nname = 'a'\nlayers = 'conv w99999999999 | dense'",
            "learner a: network, at `w99999999999`: w1 to w1000 are the widths",
        ),
        (
            "held_out = ['vgg']\n[[learner]]\nfamily = 'vgg'",
            "learner vgg: vgg is held out",
        ),
    ] {
        let error = Population::from_toml("file", text).unwrap_err();
        let line = error.to_string();
        assert!(
            line.contains(wanted) && line.starts_with("file: "),
            "{text}: {line}"
        );
    }
    let twice = "[[learner]]\nfamily = 'base'\n".repeat(2);
    let error = Suite::from_toml("suite", &twice).unwrap_err().to_string();
    assert_eq!(error, "suite: two learners are called base");
    assert!(
        Suite::parse("none.toml")
            .unwrap_err()
            .to_string()
            .contains("cannot read none.toml")
    );
}

#[test]
fn starts_have_their_variance() {
    let draw = |text: &str, shape: &[usize]| {
        let start = text.parse().unwrap();
        let specs = [ParamSpec::new("w", shape, Init::Weights(start))];
        let rng = &mut StdRng::seed_from_u64(2);
        init(&specs, DType::F64, rng)
            .unwrap()
            .remove(0)
            .to_f64_vec()
    };
    let shape = [60, 3, 3, 40];
    for (text, variance, uniform) in [
        ("kaiming_normal", 2.0 / 360.0, false),
        ("kaiming_uniform", 2.0 / 360.0, true),
        ("xavier_normal 0.5", 0.25 * 2.0 / 900.0, false),
        ("xavier_uniform", 2.0 / 900.0, true),
        ("pytorch", 1.0 / (3.0 * 360.0), true),
    ] {
        let numbers = draw(text, &shape);
        let squares = numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64;
        assert!((squares / variance - 1.0).abs() < 0.03, "{text}: {squares}");
        let most = numbers.iter().copied().fold(0.0, f64::max);
        let bound = (3.0 * variance).sqrt();
        assert_eq!(most <= bound, uniform, "{text}");
    }
    for shape in [[5, 12], [12, 5]] {
        let array = Array::new(shape, draw("orthogonal 2", &shape))
            .unwrap()
            .to_f64_vec();
        let (few, along) = (shape[0].min(shape[1]), shape[0].max(shape[1]));
        let at = |i: usize, j: usize| {
            if shape[0] == few {
                array[i * along + j]
            } else {
                array[j * few + i]
            }
        };
        for (i, other) in (0..few).flat_map(|i| (0..few).map(move |j| (i, j))) {
            let dot: f64 = (0..along).map(|j| at(i, j) * at(other, j)).sum();
            let wanted = if i == other { 4.0 } else { 0.0 };
            assert!((dot - wanted).abs() < 1e-12);
        }
    }
    // Biases of PyTorch's layers, from their fan-in.
    let network: Network = "init pytorch 0.5 | dense 7".parse().unwrap();
    let learner = network.learner([2, 2, 4], 7).unwrap();
    assert_eq!(learner.params()[2].init, Init::Uniform(0.125));
    let start = Start {
        scheme: Scheme::Pytorch,
        scale: 0.5,
    };
    assert_eq!(learner.params()[0].init, Init::Weights(start));
}
