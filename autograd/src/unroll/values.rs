//! Named arrays on a device: what a training is given, what it learns, and gradients.

use crate::error::{Error, Result};
use crate::plan;
use crate::spec::ArraySpec;
use kernels::{Buffer, Device, View};
use std::collections::HashMap;
use tensor::{Array, Arrays};

/// Arrays on a device, by name. [`Unroll`](crate::Unroll) looks up there what its training declares; what else there is
/// does not matter, so several trainings may share their values.
///
/// ```
/// use autograd::prelude::*;
/// let device = Device::cpu(None)?;
/// let mut values = Values::new(&device, [("lr", &Array::full(F32, [3], 0.1))])?;
/// values.set_row("lr", 1, &Array::scalar(0.5, F32))?;
/// assert_eq!(values.get("lr")?.as_f32(), Some(&[0.1, 0.5, 0.1][..]));
/// values.set("w", &Array::zeros(F32, [8, 1]))?;
/// assert!(values.get("v").is_err());
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Values {
    device: Device,
    arrays: Vec<(ArraySpec, Buffer)>,
    places: HashMap<String, usize>,
}

impl Values {
    /// Copies arrays to a device.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn new<'a>(
        device: &Device,
        arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
    ) -> Result<Self> {
        let mut values = Self::zeros(device, &[])?;
        values.set_all(arrays)?;
        Ok(values)
    }

    /// Zeros of these names, types and shapes.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn zeros(device: &Device, specs: &[ArraySpec]) -> Result<Self> {
        let mut values = Self {
            device: device.clone(),
            arrays: Vec::new(),
            places: HashMap::new(),
        };
        specs
            .iter()
            .try_for_each(|spec| values.reserve(spec.clone()))?;
        Ok(values)
    }

    /// Takes memory for an array of zeros, in place of the one of that name if there is one.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn reserve(&mut self, spec: ArraySpec) -> Result<()> {
        let buffer = self.device.alloc(spec.bytes())?;
        if let Some(&at) = self.places.get(&spec.name) {
            self.arrays[at] = (spec, buffer);
        } else {
            self.places.insert(spec.name.clone(), self.arrays.len());
            self.arrays.push((spec, buffer));
        }
        Ok(())
    }

    /// The device that they lie on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The arrays' descriptions, in the order in which they came.
    pub fn specs(&self) -> impl ExactSizeIterator<Item = &ArraySpec> {
        self.arrays.iter().map(|(spec, _)| spec)
    }

    /// Bytes of all arrays.
    pub fn bytes(&self) -> usize {
        self.specs()
            .map(ArraySpec::bytes)
            .fold(0, usize::saturating_add)
    }

    /// Copies an array in. One of that name is overwritten, or replaced if it has another type or shape.
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn set(&mut self, name: &str, array: &Array) -> Result<()> {
        let spec = ArraySpec::from((name, array));
        if self.find(name).ok().map(|(spec, _)| spec) != Some(&spec) {
            self.reserve(spec)?;
        }
        self.write(name, array)
    }

    /// Copies several arrays in: see [`Values::set`].
    ///
    /// # Errors
    /// If there is too little memory.
    pub fn set_all<'a>(
        &mut self,
        arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
    ) -> Result<()> {
        let mut arrays = arrays.into_iter();
        arrays.try_for_each(|(name, array)| self.set(name, array))
    }

    /// Overwrites an array.
    ///
    /// # Errors
    /// If there is none of that name, type and shape.
    pub fn write(&self, name: &str, array: &Array) -> Result<()> {
        let (spec, buffer) = self.find(name)?;
        spec.expect(array)?;
        Ok(buffer.write(0, array.bytes())?)
    }

    /// Overwrites one row: what lies at one index of the first axis.
    ///
    /// # Errors
    /// If there is no such array or row, or it has another type or shape.
    pub fn set_row(&self, name: &str, row: usize, array: &Array) -> Result<()> {
        let (spec, buffer) = self.find(name)?;
        spec.row().expect(array)?;
        let (rows, bytes) = (spec.rows(), spec.row_bytes());
        if row >= rows {
            let reason = format!("`{name}` has {rows} rows: there is no row {row}");
            return Err(Error::Plan(reason));
        }
        Ok(buffer.write(row * bytes, array.bytes())?)
    }

    /// Copies an array out, when all work queued before is done.
    ///
    /// # Errors
    /// If there is none of that name, or the device failed.
    pub fn get(&self, name: &str) -> Result<Array> {
        let (spec, buffer) = self.find(name)?;
        plan::read(buffer.view(0, spec.bytes()), spec)
    }

    /// Copies all arrays out.
    ///
    /// # Errors
    /// If the device failed.
    pub fn to_arrays(&self) -> Result<Arrays> {
        let array = |spec: &ArraySpec| Ok((spec.name.clone(), self.get(&spec.name)?));
        self.specs().map(array).collect()
    }

    /// Where an array lies, for a [`Task`](crate::Task) to work on.
    ///
    /// # Panics
    /// If there is none of that name: [`Values::has`] says so.
    pub fn view(&self, name: &str) -> View<'_> {
        let at = self.places[name];
        self.at(at)
    }

    /// Where one row of an array lies.
    ///
    /// # Panics
    /// If there is no array of that name, or no such row.
    pub fn row(&self, name: &str, row: usize) -> View<'_> {
        let at = self.places[name];
        let (rows, bytes) = (self.arrays[at].0.rows(), self.arrays[at].0.row_bytes());
        assert!(row < rows, "row {row} of `{name}`, which has {rows}");
        self.at(at).part(row * bytes, bytes)
    }

    /// Whether there is an array of that name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Sets all arrays to zero.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut arrays = self.arrays.iter();
        arrays.try_for_each(|(spec, buffer)| Ok(buffer.zero(0, spec.bytes())?))
    }

    /// The array number `at`.
    pub(crate) fn at(&self, at: usize) -> View<'_> {
        let (spec, buffer) = &self.arrays[at];
        buffer.view(0, spec.bytes())
    }

    /// Where an array of exactly this description lies.
    pub(crate) fn expect(&self, spec: &ArraySpec) -> Result<View<'_>> {
        let (here, buffer) = self.find(&spec.name)?;
        if here.dtype != spec.dtype || here.shape != spec.shape {
            return Err(Error::Plan(format!(
                "`{}` is {} {}, where {} {} is needed",
                spec.name, here.dtype, here.shape, spec.dtype, spec.shape
            )));
        }
        Ok(buffer.view(0, spec.bytes()))
    }

    fn find(&self, name: &str) -> Result<(&ArraySpec, &Buffer)> {
        let missing = || Error::Plan(format!("there is no array `{name}`; {}", self.names()));
        let at = self.places.get(name).ok_or_else(missing)?;
        let (spec, buffer) = &self.arrays[*at];
        Ok((spec, buffer))
    }

    /// The names there are, for messages.
    fn names(&self) -> String {
        let names: Vec<&str> = self.specs().map(|spec| spec.name.as_str()).collect();
        match &names[..] {
            [] => "there is none at all".to_owned(),
            names if names.len() > 20 => format!("there are {} others", names.len()),
            names => format!("there are {}", names.join(", ")),
        }
    }
}
