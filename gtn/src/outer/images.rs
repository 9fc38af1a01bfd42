//! Labelled images where the learners are: put there once, batches are picked on the device.

use crate::data::Dataset;
use crate::outer::curriculum::one_hot;
use crate::outer::routine::{Pick, array, whole};
use crate::outer::training::{batch_ports, labels};
use crate::run::config::Config;
use autograd::{Port, Records, Result};
use kernels::{Buffer, Device, View};

/// Images that are normalised at a time, before there is a data set.
const CHUNK: usize = 1000;

/// The training images of a data set, normalised, with their classes as rows with one 1.
#[derive(Debug)]
pub struct Images {
    count: usize,
    /// Images f32 \[count, rows, columns, channels\], classes f32 \[count, classes\].
    tables: [Buffer; 2],
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
        let ports = batch_ports(count);
        let [x, y] = [&ports[0], &ports[1]].map(|port: &Port| device.alloc(port.bytes()));
        let tables = [x?, y?];
        let size = |table: &Buffer| table.bytes() / count.max(1);
        for first in (0..count).step_by(CHUNK) {
            let some: Vec<usize> = (first..count.min(first + CHUNK)).collect();
            let classes = one_hot(&labels(split, &some));
            let parts = [array(data.normalised(split, &some)), array(classes)];
            for (table, part) in tables.iter().zip(parts) {
                table.write(first * size(table), part.bytes())?;
            }
        }
        let sizes = [config.inner_batch, config.outer_batch];
        let pick = |size| Ok((size, Pick::new(device, &ports, size)?));
        Ok(Self {
            count,
            tables,
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
        let tables: Vec<View<'_>> = self.tables.iter().map(whole).collect();
        let results = [records.view(record, 0), records.view(record, 1)];
        pick.put(&tables, chosen, &results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DatasetChoice, load};
    use crate::outer::training::put_batch;
    use crate::run::config::Preset;

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
