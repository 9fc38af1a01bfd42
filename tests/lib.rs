//! Tests that cross crates (see the files beside this one), and the goldens that they share.

use std::path::Path;
use tensor::{Array, Arrays, FileError, read_safetensors};

/// The starting values of a benchmark set-up and what JAX finds from there, in f64; made by
/// `goldens/make.py`, which says more.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Starting values: `theta0.*`, `meta.*`, the labels `y`, the real images `xo`, their labels
    /// `yo`.
    pub init: Arrays,
    /// The meta-gradient, named as the `meta.*` it belongs to: `gen.g1.v`, `z` or `x`, `lr`, `mom`.
    pub grad: Arrays,
    /// The outer loss.
    pub loss: f64,
}

impl Golden {
    /// Reads `goldens/<name>.safetensors`, such as `tiny-gen-bn`.
    ///
    /// # Errors
    /// [`FileError`] if there is no such golden.
    pub fn read(name: &str) -> Result<Self, FileError> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
        let (mut arrays, _) = read_safetensors(folder.join(format!("{name}.safetensors")))?;
        let loss = arrays
            .remove("loss")
            .expect("every golden has a loss")
            .to_f64_vec()[0];
        let part = |prefix| {
            let named = |(name, array): (&String, &Array)| {
                Some((name.strip_prefix(prefix)?.to_owned(), array.clone()))
            };
            arrays.iter().filter_map(named).collect()
        };
        Ok(Self {
            init: part("init."),
            grad: part("grad."),
            loss,
        })
    }

    /// How far a meta-gradient is from the golden's: for its worst array, the greatest difference
    /// against the array's greatest entry (or a millionth of the greatest of all arrays, since some
    /// are zero but for rounding, such as a bias before a batch norm), and the array's name.
    ///
    /// # Panics
    /// If an array is missing or of another size.
    pub fn worst(&self, ours: &Arrays) -> (f64, &str) {
        let floor = 1e-6 * self.grad.values().map(greatest).fold(0.0, f64::max);
        let distances = self.grad.iter().map(|(name, golden)| {
            let ours = ours
                .get(name)
                .unwrap_or_else(|| panic!("no gradient of {name}"));
            let (ours, theirs) = (ours.to_f64_vec(), golden.to_f64_vec());
            assert_eq!(ours.len(), theirs.len(), "size of the gradient of {name}");
            // Unlike f64::max, keeps NaN, and so reports it.
            let greater = |most: f64, d: f64| if d > most || d.is_nan() { d } else { most };
            let apart = ours
                .iter()
                .zip(&theirs)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, greater);
            (apart / greatest(golden).max(floor), &name[..])
        });
        distances
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("a golden has gradients")
    }
}

fn greatest(array: &Array) -> f64 {
    array
        .to_f64_vec()
        .into_iter()
        .map(f64::abs)
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::DType;

    const ALL: [&str; 6] = [
        "tiny-gen",
        "tiny-gen-bn",
        "tiny-direct",
        "tiny-direct-bn",
        "tinymlp-gen",
        "tinymlp-direct",
    ];

    #[test]
    fn goldens_are_whole() {
        for name in ALL {
            let golden = Golden::read(name).unwrap();
            let learned = golden
                .init
                .iter()
                .filter_map(|(k, v)| Some((k.strip_prefix("meta.")?, v)));
            let shapes: Vec<_> = learned.map(|(k, v)| (k, v.shape())).collect();
            let grads: Vec<_> = golden
                .grad
                .iter()
                .map(|(k, v)| (&k[..], v.shape()))
                .collect();
            assert_eq!(shapes, grads);
            assert!(golden.loss > 0.0 && golden.grad.values().all(Array::all_finite));
            assert_eq!(golden.init["y"].dtype(), DType::I32);
            assert_eq!(
                golden.init.contains_key("theta0.c1.gamma"),
                name.ends_with("bn")
            );
        }
        assert!(Golden::read("none").is_err());
    }

    #[test]
    fn worst_finds_the_array_that_is_off() {
        let golden = Golden::read("tiny-direct").unwrap();
        assert_eq!(golden.worst(&golden.grad).0, 0.0);
        let most = greatest(&golden.grad["lr"]);
        for (off, expected) in [(0.5 * most, 0.5), (f64::NAN, f64::NAN)] {
            let mut lr = golden.grad["lr"].to_f64_vec();
            lr[2] += off;
            let mut ours = golden.grad.clone();
            ours.insert("lr".to_owned(), Array::new([lr.len()], lr).unwrap());
            let (distance, name) = golden.worst(&ours);
            assert_eq!(name, "lr");
            assert!((distance - expected).abs() < 1e-15 || distance.is_nan() && expected.is_nan());
        }
    }
}
