//! Labelled images where the learners are: put there once, batches are picked on the device.

use crate::config::{Config, IMAGE};
use crate::curriculum::one_hot;
use crate::data::{CLASSES, Dataset, PIXELS};
use crate::training::labels;
use autograd::{Plan, Records, Result, Tape};
use kernels::{Buffer, Device, View};
use tensor::{Array, DType, Data};

/// Images that are normalised at a time, before there is a data set.
const CHUNK: usize = 1000;

/// Picks batches of one size.
#[derive(Debug)]
struct Pick {
    plan: Plan,
    /// i32 \[batch\].
    chosen: Buffer,
    arena: Buffer,
}

/// The training images of a data set, normalised, with their classes as rows with one 1.
#[derive(Debug)]
pub struct Images {
    device: Device,
    count: usize,
    /// f32 \[count, rows, columns, channels\].
    x: Buffer,
    /// f32 \[count, classes\].
    y: Buffer,
    /// By the size of the batch.
    picks: Vec<(usize, Pick)>,
}

impl Images {
    /// Puts the training images on the device, for the batches that the settings ask for.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, config: &Config, data: &Dataset) -> Result<Self> {
        let (split, count) = (&data.train, data.train.len());
        let [x, y] = bytes(count).map(|bytes| device.alloc(bytes));
        let (x, y) = (x?, y?);
        for first in (0..count).step_by(CHUNK) {
            let some: Vec<usize> = (first..count.min(first + CHUNK)).collect();
            let [x_at, y_at] = bytes(first);
            x.write(x_at, array(data.normalised(split, &some)).bytes())?;
            y.write(y_at, array(one_hot(&labels(split, &some))).bytes())?;
        }
        let sizes = [config.inner_batch, config.outer_batch];
        let pick = |size| Ok((size, Pick::new(device, count, size)?));
        Ok(Self {
            device: device.clone(),
            count,
            x,
            y,
            picks: sizes.into_iter().map(pick).collect::<Result<_>>()?,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Puts the chosen images and their classes into the first two fields of a record. Nobody waits.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is of no size that the settings named.
    pub fn put(&self, records: &Records, record: usize, chosen: &[usize]) -> Result<()> {
        let found = self.picks.iter().find(|(size, _)| *size == chosen.len());
        let (_, pick) = found.expect("a batch of the settings");
        let numbers: Vec<i32> = chosen.iter().map(|&i| i as i32).collect();
        pick.chosen.write(0, array(numbers).bytes())?;
        let inputs: Vec<View<'_>> = pick
            .plan
            .inputs()
            .iter()
            .map(|port| match &port.name[..] {
                "x" => whole(&self.x),
                "y" => whole(&self.y),
                _ => whole(&pick.chosen),
            })
            .collect();
        let outputs = [records.view(record, 0), records.view(record, 1)];
        pick.plan
            .execute(&self.device, whole(&pick.arena), &inputs, &outputs)
    }
}

impl Pick {
    fn new(device: &Device, count: usize, batch: usize) -> Result<Self> {
        let tape = Tape::new();
        let [h, w, c] = IMAGE;
        let x = tape.input("x", DType::F32, [count, h, w, c])?;
        let y = tape.input("y", DType::F32, [count, CLASSES])?;
        let chosen = tape.input("chosen", DType::I32, [batch])?;
        let plan = Plan::new(&[x.rows(chosen)?, y.rows(chosen)?])?;
        Ok(Self {
            chosen: device.alloc(batch * DType::I32.size())?,
            arena: device.alloc(plan.arena_bytes())?,
            plan,
        })
    }
}

/// Bytes of as many images, and of their classes.
pub(crate) fn bytes(count: usize) -> [usize; 2] {
    [PIXELS, CLASSES].map(|width| count * width * DType::F32.size())
}

fn array(numbers: impl Into<Data>) -> Array {
    let data = numbers.into();
    Array::new([data.count()], data).expect("as many numbers as it says")
}

fn whole(buffer: &Buffer) -> View<'_> {
    buffer.view(0, buffer.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use crate::data::{DatasetChoice, load};
    use crate::training::{batch_ports, put_batch};

    #[test]
    fn picked_batches_are_those_that_the_host_would_put_together() {
        let data = load(DatasetChoice::Embedded, None, 1).unwrap();
        let config = Config {
            inner_batch: 3,
            outer_batch: 5,
            ..Config::preset(Preset::Quick)
        };
        let device = Device::cpu(Some(1)).unwrap();
        let images = Images::new(&device, &config, &data).unwrap();
        let last = images.count() - 1;
        for chosen in [&[0, last, 7][..], &[1001, 5, 5, 999, 1000]] {
            let [picked, put] = [0, 1].map(|_| {
                let ports = batch_ports(chosen.len());
                Records::new(&device, ports, 2).unwrap()
            });
            images.put(&picked, 1, chosen).unwrap();
            put_batch(&put, 1, &data, &data.train, chosen).unwrap();
            for field in [0, 1] {
                let [picked, put] = [&picked, &put].map(|r| r.get(1, field).unwrap());
                assert_eq!(picked.bytes(), put.bytes());
            }
        }
    }
}
