//! Families of learners: networks whose text leaves widths, depth, normalisation and activation open.

use super::Learner;
use super::drawn::Drawn;
use super::network::{Activation, Network, Norm, Places, Start, parse, widths_in};
use super::widths::Widths;
use autograd::{Error, Result};
use rand::{Rng, RngExt};

/// A family of learners. Where a choice has several values, a learner's is drawn from them.
///
/// ```
/// use gtn::nn::{Family, Norm};
/// let family = Family::named("base_fc").unwrap();
/// let learner = family.learner([28, 28, 1], 10, &[64, 128, 256], Norm::MeanOnly)?;
/// assert_eq!(learner.parameter_count(), 1_683_668);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// The text of a [`Network`] with open places: `w1`, `w2`, …, `depth`, `norm` or `norm_or_bias`, and `act`.
    pub text: String,
    /// Its usual widths: the published ones, if there are any.
    pub usual: Vec<usize>,
    /// For each width a range to draw from.
    pub widths: Widths,
    /// The least and the greatest depth.
    pub depth: [usize; 2],
    /// Normalisations.
    pub norms: Vec<Norm>,
    /// Activations.
    pub activations: Vec<Activation>,
    /// How weights start; as the text says, if there are none.
    pub inits: Vec<Start>,
    /// Whether weights have weight norm; as the text says, if there are none.
    pub weight_norms: Vec<bool>,
}

impl Family {
    /// A family of a user's own, by its text.
    ///
    /// # Errors
    /// If the text does not describe a network.
    pub fn of_text(text: &str) -> Result<Self> {
        // Any number will do to see whether the text makes sense.
        let usual = vec![64; widths_in(text).map_err(Error::Setting)?];
        let family = Self {
            name: text.split_whitespace().collect::<Vec<_>>().join(" "),
            text: text.to_owned(),
            widths: Widths::fixed(&usual),
            usual,
            depth: [1; 2],
            norms: vec![Norm::default()],
            activations: vec![Activation::Relu],
            inits: Vec::new(),
            weight_norms: Vec::new(),
        };
        family.network(&family.usual, Norm::default())?;
        Ok(family)
    }

    /// The learner of [`network`](Self::network).
    ///
    /// # Errors
    /// If there are more or fewer widths than places for them, or the image is too small.
    pub fn learner(
        &self,
        image: [usize; 3],
        classes: usize,
        widths: &[usize],
        norm: Norm,
    ) -> Result<Learner> {
        self.network(widths, norm)?.learner(image, classes)
    }

    /// The network of these widths, with this normalisation; everything else as the first choice has it.
    ///
    /// # Errors
    /// If there are more or fewer widths than places for them.
    pub fn network(&self, widths: &[usize], norm: Norm) -> Result<Network> {
        let depth = self.depth[0].midpoint(self.depth[1]);
        Ok(self.first(widths.to_vec(), depth, norm)?.network)
    }

    /// Draws a network.
    ///
    /// # Errors
    /// If the text does not describe a network.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Result<Drawn> {
        let widths = self.widths.sample(rng);
        let [least, most] = self.depth;
        let depth = if least < most {
            rng.random_range(least..=most)
        } else {
            least
        };
        let places = Places {
            widths,
            depth,
            norm: one_of(&self.norms, rng).unwrap_or_default(),
            activation: one_of(&self.activations, rng).unwrap_or(Activation::Relu),
        };
        let (init, weight_norm) = (one_of(&self.inits, rng), one_of(&self.weight_norms, rng));
        self.drawn(places, init, weight_norm)
    }

    /// The network in the middle of all ranges, with the first choices.
    ///
    /// # Errors
    /// If the text does not describe a network.
    pub fn middle(&self) -> Result<Drawn> {
        self.first(
            self.widths.middle(),
            self.depth[0].midpoint(self.depth[1]),
            self.norms[0],
        )
    }

    /// The network at the upper end of all ranges, which takes the most memory.
    ///
    /// # Errors
    /// If the text does not describe a network.
    pub fn widest(&self) -> Result<Drawn> {
        self.first(self.widths.widest(), self.depth[1], self.norms[0])
    }

    fn first(&self, widths: Vec<usize>, depth: usize, norm: Norm) -> Result<Drawn> {
        let places = Places {
            widths,
            depth,
            norm,
            activation: self.activations[0],
        };
        let own = (self.inits.first(), self.weight_norms.first());
        self.drawn(places, own.0.copied(), own.1.copied())
    }

    fn drawn(
        &self,
        places: Places,
        init: Option<Start>,
        weight_norm: Option<bool>,
    ) -> Result<Drawn> {
        Ok(Drawn {
            family: self.name.clone(),
            code: None,
            network: self.filled(&places, init, weight_norm)?,
            widths: places.widths,
        })
    }

    fn filled(
        &self,
        places: &Places,
        init: Option<Start>,
        weight_norm: Option<bool>,
    ) -> Result<Network> {
        let wanted = widths_in(&self.text).map_err(Error::Setting)?;
        let given = places.widths.len();
        if wanted != given {
            let name = &self.name;
            let reason = format!("learner {name}: {wanted} widths wanted, {given} given");
            return Err(Error::Setting(reason));
        }
        let mut network = parse(&self.text, Some(places)).map_err(Error::Setting)?;
        network.init = init.unwrap_or(network.init);
        network.weight_norm = weight_norm.unwrap_or(network.weight_norm);
        Ok(network)
    }
}

/// One of some choices. Where there is a single one, no random number is drawn.
fn one_of<T: Copy, R: Rng + ?Sized>(choices: &[T], rng: &mut R) -> Option<T> {
    match choices {
        [] => None,
        [only] => Some(*only),
        several => Some(several[rng.random_range(0..several.len())]),
    }
}
