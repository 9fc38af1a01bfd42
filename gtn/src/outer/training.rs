//! Trainings of learners: on what a generator makes, or on given images.

use crate::data::{CLASSES, Dataset, PIXELS, Split};
use crate::nn::{Generator, Learner, ParamSpec, Statistics, init};
use crate::outer::curriculum::one_hot;
use crate::run::config::{Config, IMAGE};
use crate::seeds::{Draw, rng};
use autograd::optim::Optimizer;
use autograd::{Port, Records, Result, Row, Scope, Training, Var};
use kernels::Device;
use rand::{Rng, RngExt};
use tensor::{Array, DType, Shape};

/// What moves a learner: SGD with momentum.
pub const INNER: Optimizer = Optimizer::Momentum;

/// An f32 array of a name and shape.
pub fn port(name: &str, shape: impl Into<Shape>) -> Port {
    Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: shape.into(),
    }
}

/// The arrays of parameters, in f32.
pub fn ports(specs: &[ParamSpec]) -> Vec<Port> {
    specs
        .iter()
        .map(|spec| port(&spec.name, spec.shape.clone()))
        .collect()
}

/// The arrays of a labelled batch: images, and classes as rows with one 1.
pub fn batch_ports(count: usize) -> Vec<Port> {
    let [h, w, c] = IMAGE;
    vec![port("x", [count, h, w, c]), port("y", [count, CLASSES])]
}

/// Learners taught as the settings say.
pub fn training<'a>(
    config: &Config,
    generator: &'a Generator,
    learner: &'a Learner,
) -> Training<'a> {
    let [batch, outer] = [config.inner_batch, config.outer_batch];
    let alone = if config.curriculum.generates() {
        let learn_noise = config.curriculum.learns_noise();
        by_generator(generator, learner, batch, outer, learn_noise)
    } else {
        by_images(learner, batch, outer)
    };
    together(alone, config.learners_per_step)
}

/// The training of a learner as that of several on the same batches: θ and buffers get a first axis for the
/// learners, if there is more than one. The inner loss has to be the sum of theirs, so that each follows its
/// own gradient; the outer loss is the mean, and so is the meta-gradient.
pub fn together(mut training: Training<'_>, learners: usize) -> Training<'_> {
    if learners > 1 {
        for port in training.theta.iter_mut().chain(&mut training.buffers) {
            port.shape = [&[learners], &port.shape[..]].concat().into();
        }
    }
    training
}

/// The sum of the learners' losses, on whatever one of them has.
pub fn sum_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.sum_all()
}

/// The mean of the learners' losses.
pub fn mean_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.mean_all()
}

/// The mean of a mean loss over all images, at most `piece` of them at a time, so that activations take
/// memory for so many only. The loss must not look from one image to another, as batch norm does.
pub fn mean_over_pieces<'t>(
    images: Var<'t>,
    classes: Var<'t>,
    piece: usize,
    loss: impl Fn(Var<'t>, Var<'t>) -> Result<Var<'t>>,
) -> Result<Var<'t>> {
    let count = images.shape()[0];
    if count <= piece {
        return loss(images, classes);
    }
    let rows = |var: Var<'t>, first: usize, extent: usize| {
        let (mut start, mut extents) = (vec![0; var.shape().len()], var.shape().to_vec());
        (start[0], extents[0]) = (first, extent);
        var.slice(&start, &extents)
    };
    let mut terms = Vec::new();
    for first in (0..count).step_by(piece) {
        let extent = piece.min(count - first);
        let mean = loss(rows(images, first, extent)?, rows(classes, first, extent)?)?;
        let share = extent as f64 / count as f64;
        terms.push((mean * images.tape().constant(share, mean.dtype(), mean.shape()))?);
    }
    images.tape().sum_of(&terms)
}

/// A learner taught by a generator. The rows of a step are its noise `z` and classes `y`; shared are the
/// generator's parameters.
pub fn by_generator<'a>(
    generator: &'a Generator,
    learner: &'a Learner,
    batch: usize,
    outer_batch: usize,
    learn_noise: bool,
) -> Training<'a> {
    let noise = generator.config().noise;
    let row = |port, learned| Row { port, learned };
    Training {
        theta: ports(learner.params()),
        buffers: ports(learner.buffers()),
        shared: ports(generator.params()),
        rows: vec![
            row(port("z", [batch, noise]), learn_noise),
            row(port("y", [batch, CLASSES]), false),
        ],
        outer_rows: batch_ports(outer_batch),
        optimizer: INNER,
        precondition: None,
        prepare: Box::new(|_, shared| generator.prepare(shared)),
        loss: Box::new(|s: Scope<'_, '_>| {
            let images = generator.images(s.shared, s.rows[0], s.rows[1])?;
            let (logits, buffers) = learner.logits(s.theta, images, Statistics::Batch)?;
            Ok((sum_of_losses(logits, s.rows[1])?, buffers))
        }),
        outer: Box::new(|s: Scope<'_, '_>| real_loss(learner, s)),
    }
}

/// A learner taught by given images: the rows of a step are `x` and `y`.
pub fn by_images(learner: &Learner, batch: usize, outer_batch: usize) -> Training<'_> {
    let row = |port| Row {
        port,
        learned: false,
    };
    Training {
        theta: ports(learner.params()),
        buffers: ports(learner.buffers()),
        shared: Vec::new(),
        rows: batch_ports(batch).into_iter().map(row).collect(),
        outer_rows: batch_ports(outer_batch),
        optimizer: INNER,
        precondition: None,
        prepare: Box::new(|_, _| Ok(Vec::new())),
        loss: Box::new(|s: Scope<'_, '_>| {
            let (logits, buffers) = learner.logits(s.theta, s.rows[0], Statistics::Batch)?;
            Ok((sum_of_losses(logits, s.rows[1])?, buffers))
        }),
        outer: Box::new(|s: Scope<'_, '_>| real_loss(learner, s)),
    }
}

/// Cross-entropy on real images, with the means that the last synthetic batch left.
fn real_loss<'t>(learner: &Learner, s: Scope<'_, 't>) -> Result<Var<'t>> {
    let (logits, _) = learner.logits(s.theta, s.rows[0], Statistics::Stored(s.buffers))?;
    mean_of_losses(logits, s.rows[1])
}

/// The state of a fresh learner: θ drawn, all else zero.
pub fn fresh<R: Rng + ?Sized>(
    device: &Device,
    training: &Training<'_>,
    learner: &Learner,
    rng: &mut R,
) -> Result<Records> {
    let start = Records::new(device, training.start_ports(), 1)?;
    for (field, array) in init(learner.params(), DType::F32, rng)?.iter().enumerate() {
        start.set(0, field, array)?;
    }
    Ok(start)
}

/// Puts numbers into a field of a record, in the shape that the field has.
pub fn put(records: &Records, record: usize, field: usize, numbers: Vec<f32>) -> Result<()> {
    let shape = records.ports()[field].shape.clone();
    let array = Array::new(shape, numbers).expect("as many numbers as the shape has");
    records.set(record, field, &array)
}

/// The numbers of a field of a record.
pub fn take(records: &Records, record: usize, field: usize) -> Result<Vec<f32>> {
    let array = records.get(record, field)?;
    Ok(array.as_f32().expect("all records are f32").to_vec())
}

/// Fills the first two fields of every record with `batch` real images drawn uniformly from the training images, for
/// the training number `number`, and gives their classes.
pub fn put_real_batches(
    rows: &Records,
    batch: usize,
    data: &Dataset,
    seed: u64,
    number: u64,
) -> Result<Vec<u8>> {
    let chosen = draw(seed, number, rows.count() * batch, data.train.len());
    for (step, chosen) in chosen.chunks(batch).enumerate() {
        put_batch(rows, step, data, &data.train, chosen)?;
    }
    Ok(labels(&data.train, &chosen))
}

/// The numbers of `images` real images out of `count`, drawn uniformly for the inner steps of the training
/// number `number`.
pub(crate) fn draw(seed: u64, number: u64, images: usize, count: usize) -> Vec<usize> {
    let rng = &mut rng(seed, Draw::RealBatch, number, 0);
    (0..images).map(|_| rng.random_range(0..count)).collect()
}

/// The classes of the chosen images.
pub(crate) fn labels(split: &Split, chosen: &[usize]) -> Vec<u8> {
    chosen.iter().map(|&i| split.labels[i]).collect()
}

/// Puts the chosen real images and their classes into the first two fields of a record.
pub fn put_batch(
    records: &Records,
    record: usize,
    data: &Dataset,
    split: &Split,
    chosen: &[usize],
) -> Result<()> {
    debug_assert_eq!(records.ports()[0].shape.count(), chosen.len() * PIXELS);
    put(records, record, 0, data.normalised(split, chosen))?;
    put(records, record, 1, one_hot(&labels(split, chosen)))
}
