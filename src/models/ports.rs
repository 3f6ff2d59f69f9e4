//! What a network takes: its named inputs with their dimensions, how files hold them, how a test fills them, and how
//! often each changes while a picture is made.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result, ten};
use crate::rng::Generator;
use crate::tensor::{Shape, Tensor};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a graph is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Rows: pictures times texts of each.
    pub batch: usize,
    /// Of the latents.
    pub height: usize,
    /// Width of the latents.
    pub width: usize,
    /// Of a text.
    pub tokens: usize,
}

/// A dimension of a port: a number, or a size that its tensors decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// This number.
    Is(usize),
    /// Rows of a run.
    Batch,
    /// Of the latents, times this.
    Height(usize),
    /// Width of the latents, times this.
    Width(usize),
    /// Tokens of a text.
    Tokens,
}

impl Dim {
    /// Which of the [`Sizes`] it is a multiple of, in their order, and that factor; or else the number that it is.
    fn parts(self) -> (Option<usize>, usize) {
        match self {
            Self::Is(n) => (None, n),
            Self::Batch => (Some(0), 1),
            Self::Height(factor) => (Some(1), factor),
            Self::Width(factor) => (Some(2), factor),
            Self::Tokens => (Some(3), 1),
        }
    }
}

/// How files hold a port's tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As the graph takes it.
    AsIs,
    /// `[B, C, H, W]`, where the graph takes `[B, H, W, C]`.
    Image,
    /// One number for all rows will do.
    Row,
}

/// How often a port's values change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// With the picture that guides: once for all steps and all texts.
    Picture,
    /// With the text: once for all steps.
    Text,
    /// With the time, and with the text that is joined to it: all steps' together.
    Time,
    /// At every step.
    Step,
}

/// How a test fills a port.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// Standard normal.
    Normal,
    /// Pixels from 0 to 1.
    Unit,
    /// Pixels from -1 to 1.
    Signed,
    /// Ids below the first number, and the second at every text's end.
    Ids(usize, Option<usize>),
    /// These numbers, over and over.
    Repeat(Vec<f32>),
}

/// A named input.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// diffusers' name of the argument.
    pub name: &'static str,
    /// As files hold it.
    pub dims: Vec<Dim>,
    /// How files hold it.
    pub layout: Layout,
    /// How often it changes.
    pub changes: Changes,
    /// How a test fills it.
    pub fill: Fill,
    /// Whether it may be left out.
    pub optional: bool,
}

impl Port {
    /// A port that files hold as the graph takes it, and that must be given.
    pub fn new(name: &'static str, dims: impl Into<Vec<Dim>>, changes: Changes, fill: Fill) -> Self {
        Self { name, dims: dims.into(), layout: Layout::AsIs, changes, fill, optional: false }
    }

    /// A picture or latents with this number of channels and `factor` pixels to a latent.
    pub fn image(name: &'static str, channels: usize, factor: usize, changes: Changes, fill: Fill) -> Self {
        let dims = [Dim::Batch, Dim::Is(channels), Dim::Height(factor), Dim::Width(factor)];
        Self { layout: Layout::Image, ..Self::new(name, dims, changes, fill) }
    }

    /// The same where one number does for all rows.
    pub fn spread(self) -> Self {
        Self { layout: Layout::Row, ..self }
    }

    /// The same where it may be left out.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn shape(&self, sizes: &Sizes) -> Shape {
        let all = [sizes.batch, sizes.height, sizes.width, sizes.tokens];
        let dim = |dim: &Dim| match dim.parts() {
            (None, n) => n,
            (Some(size), factor) => factor * all[size],
        };
        Shape::new(self.dims.iter().map(dim).collect::<Vec<_>>())
    }

    /// A tensor for a test, as a file would hold it.
    pub fn random(&self, sizes: &Sizes, generator: &mut Generator) -> Tensor {
        let shape = self.shape(sizes);
        let mut normal = || generator.normal(shape.len());
        let data = match &self.fill {
            Fill::Normal => normal(),
            Fill::Unit => normal().into_iter().map(|v| (v / 4.0 + 0.5).clamp(0.0, 1.0)).collect(),
            Fill::Signed => normal().into_iter().map(|v| (v / 2.0).clamp(-1.0, 1.0)).collect(),
            Fill::Ids(below, end) => {
                let ids = normal().into_iter().map(|v| (v.abs() * 1e4).floor() % *below as f32).enumerate();
                let is_last = |i: usize| (i + 1).is_multiple_of(sizes.tokens);
                ids.map(|(i, id)| end.filter(|_| is_last(i)).map_or(id, |end| end as f32)).collect()
            }
            Fill::Repeat(values) => values.iter().cycle().take(shape.len()).copied().collect(),
        };
        Tensor { data, shape }
    }
}

/// Of the [`Sizes`], in messages.
const SYMBOLS: [&str; 4] = ["B", "H", "W", "T"];

impl fmt::Display for Port {
    /// Its dimensions in a file: `[B, 4, H, W]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dim = |dim: &Dim| match dim.parts() {
            (None, n) => n.to_string(),
            (Some(size), 1) => SYMBOLS[size].into(),
            (Some(size), factor) => format!("{factor} {}", SYMBOLS[size]),
        };
        write!(f, "[{}]", self.dims.iter().map(dim).collect::<Vec<_>>().join(", "))
    }
}

/// A file's tensors as the graph takes them, and the sizes that they have.
///
/// # Errors
/// If one is missing, of another shape than its port's or than the others allow, empty, not finite, or of no port.
pub fn bind(ports: &[Port], mut given: Tensors) -> Result<(Tensors, Sizes)> {
    let mut found = Found::default();
    let mut inputs = Tensors::new();
    for port in ports {
        let names: Vec<_> = given.keys().cloned().collect();
        let Some(tensor) = given.remove(port.name) else {
            if port.optional {
                continue;
            }
            return Err(Error::usage(format!("the inputs hold no {}, only {}", port.name, ten(&names))));
        };
        if tensor.shape.is_empty() {
            return Err(Error::usage(format!("the input {} is empty: {}", port.name, tensor.shape)));
        }
        if let Some(index) = tensor.first_not_finite() {
            let place = tensor.shape.place(index);
            let what = format!("the input {} is NaN or infinite at element {place}", port.name);
            return Err(Error::not_finite(what));
        }
        inputs.insert(port.name.into(), found.take(port, tensor)?);
    }
    if !given.is_empty() {
        let names: Vec<_> = given.keys().collect();
        let what = format!("the inputs hold tensors that this component does not take: {}", ten(&names));
        return Err(Error::usage(what));
    }
    // What no port has may be anything.
    let [batch, height, width, tokens] = found.0.map(|size| size.unwrap_or(1));
    Ok((inputs, Sizes { batch, height, width, tokens }))
}

/// The sizes that the tensors until now have.
#[derive(Default)]
struct Found([Option<usize>; 4]);

impl Found {
    fn take(&mut self, port: &Port, tensor: Tensor) -> Result<Tensor> {
        let found = tensor.shape.clone();
        let wrong = |found: &Shape| {
            Error::usage(format!(
                "the input {} should be {port}, with the sizes of the other inputs, found {found}",
                port.name
            ))
        };
        if port.layout == Layout::Row && found.len() == 1 {
            let batch = *self.0[0].get_or_insert(1);
            return Ok(Tensor::new([batch], vec![tensor.data[0]; batch]));
        }
        let dims = found.dims();
        if dims.len() != port.dims.len() || !port.dims.iter().zip(dims).all(|(dim, n)| self.fits(*dim, *n)) {
            return Err(wrong(&found));
        }
        if port.layout == Layout::Image { tensor.to_channels_last() } else { Ok(tensor) }
    }

    /// Whether a dimension is as it should be, given those before it.
    fn fits(&mut self, dim: Dim, n: usize) -> bool {
        match dim.parts() {
            (None, wanted) => n == wanted,
            (Some(size), factor) => n.is_multiple_of(factor) && *self.0[size].get_or_insert(n / factor) == n / factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> [Port; 3] {
        [
            Port::image("sample", 2, 1, Changes::Step, Fill::Normal),
            Port::new("timestep", [Dim::Batch], Changes::Time, Fill::Repeat(vec![801.0, 41.0])).spread(),
            Port::image("image", 3, 8, Changes::Picture, Fill::Unit).optional(),
        ]
    }

    fn given(shapes: &[(&str, &[usize])]) -> Tensors {
        shapes.iter().map(|(name, dims)| (name.to_string(), Tensor::zeros(Shape::new(*dims)))).collect()
    }

    fn message(shapes: &[(&str, &[usize])]) -> String {
        bind(&ports(), given(shapes)).unwrap_err().to_string()
    }

    #[test]
    fn sizes_are_those_of_the_tensors_and_pictures_become_channels_last() {
        let all = given(&[("sample", &[3, 2, 4, 5]), ("timestep", &[]), ("image", &[3, 3, 32, 40])]);
        let (inputs, sizes) = bind(&ports(), all).unwrap();
        assert_eq!(sizes, Sizes { batch: 3, height: 4, width: 5, tokens: 1 });
        assert_eq!(inputs["sample"].shape.dims(), [3, 4, 5, 2]);
        assert_eq!(inputs["timestep"].shape.dims(), [3]);
        assert_eq!(bind(&ports(), given(&[("sample", &[1, 2, 4, 5]), ("timestep", &[1])])).unwrap().0.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_shape_that_would() {
        let wrong = message(&[("sample", &[1, 3, 4, 5]), ("timestep", &[1])]);
        assert!(wrong.starts_with("the input sample should be [B, 2, H, W], with the sizes"), "{wrong}");
        let sample: (&str, &[usize]) = ("sample", &[2, 2, 4, 5]);
        assert!(message(&[sample, ("timestep", &[3])]).contains("timestep should be [B]"));
        let image = message(&[sample, ("timestep", &[2]), ("image", &[2, 3, 32, 48])]);
        assert!(
            image.contains("image should be [B, 3, 8 H, 8 W]") && image.contains("found [2, 3, 32, 48]"),
            "{image}"
        );
        assert!(message(&[("timestep", &[1])]).contains("hold no sample, only timestep"));
        assert!(message(&[sample, ("timestep", &[2]), ("x", &[1])]).contains("does not take: x"));
        assert!(message(&[("sample", &[0, 2, 4, 5])]).contains("is empty"));
    }

    #[test]
    fn what_fills_a_port_fits_it() {
        let sizes = Sizes { batch: 2, height: 3, width: 4, tokens: 7 };
        let mut generator = Generator::new(1);
        let filled = ports().iter().map(|port| (port.name.into(), port.random(&sizes, &mut generator))).collect();
        assert_eq!(bind(&ports(), filled).unwrap().1, Sizes { tokens: 1, ..sizes });
        let ids = Port::new("ids", [Dim::Batch, Dim::Tokens], Changes::Text, Fill::Ids(9, Some(8)));
        let ids = ids.random(&sizes, &mut generator).data;
        assert!(ids.iter().all(|id| (0.0..9.0).contains(id)) && (ids[6], ids[13]) == (8.0, 8.0), "{ids:?}");
    }
}
