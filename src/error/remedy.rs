//! What to do about an error, as data: a change of a field of the request. The command line names fields by its flags,
//! a server by its keys; the library's own texts use plain words.

use std::fmt::{self, Display};

use super::{message, shown};

macro_rules! fields {
    ($($name:ident $word:literal,)*) => {
        /// What a caller may set: a field of a request, or how the work for it is done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $(#[doc = $word] $name,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// In plain words, the same as its name.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

fields! {
    Model "model",
    Variant "variant",
    Base "base",
    Unet "unet",
    Vae "vae",
    TextEncoder "text encoder",
    TextEncoder2 "text encoder 2",
    Prompt "prompt",
    Negative "negative",
    Width "width",
    Height "height",
    Batch "batch",
    Steps "steps",
    Guidance "guidance",
    GuidanceRescale "guidance rescale",
    Seed "seed",
    Sampler "sampler",
    Spacing "spacing",
    Schedule "schedule",
    Prediction "prediction",
    Eta "eta",
    Class "class",
    InitImage "init image",
    Strength "strength",
    Mask "mask",
    MaskBlur "mask blur",
    MaskInvert "mask invert",
    InpaintFullRes "inpaint full res",
    Extend "extend",
    Hires "hires",
    HiresStrength "hires strength",
    HiresMode "hires mode",
    VariationSeed "variation seed",
    VariationStrength "variation strength",
    ImageGuidance "image guidance",
    NoiseLevel "noise level",
    Refiner "refiner",
    RefinerStart "refiner start",
    ClipSkip "clip skip",
    Embedding "embedding",
    InitLatents "init latents",
    Lora "lora",
    LoraDir "lora dir",
    Control "control",
    ControlScale "control scale",
    ControlStart "control start",
    ControlEnd "control end",
    Device "device",
    Dtype "dtype",
    Shaders "shaders",
    Node "node",
    Full "full",
    ProcessorTime "processor time",
}

/// A change that may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// This value.
    Set(Field, String),
    /// Another value than the present one.
    Other(Field),
    /// A smaller value.
    Less(Field),
    /// A larger value.
    More(Field),
    /// A value, for a field without a default.
    Give(Field),
    /// What was given, as this field instead.
    GiveAs(Field),
    /// The default instead of the present value.
    Without(Field),
    /// To have this op's kernels checked, with the present values of these.
    Validate(String, &'static [Field]),
}

impl Remedy {
    /// That field with this value.
    pub fn set(field: Field, value: impl Display) -> Self {
        Self::Set(field, value.to_string())
    }

    /// What to do, with what kind of value, of which field.
    fn parts(&self) -> (&'static str, &'static str, Field) {
        match *self {
            Self::Set(field, _) => ("try ", "", field),
            Self::Other(field) => ("try ", "another ", field),
            Self::Less(Field::Steps) => ("try ", "fewer ", Field::Steps),
            Self::Less(field) => ("try ", "a smaller ", field),
            Self::More(Field::Steps) => ("try ", "more ", Field::Steps),
            Self::More(field) => ("try ", "a larger ", field),
            Self::Give(field) => ("give ", "", field),
            Self::GiveAs(field) => ("give it as ", "", field),
            Self::Without(field) => ("leave out ", "", field),
            Self::Validate(..) => ("see ", "", Field::Device),
        }
    }
}

/// A sentence of several remedies: "try dtype f16, device cpu, a smaller width or height". What two neighbours have in
/// common is said once.
fn sentence(remedies: &[Remedy], name: Name) -> String {
    let mut before = ("", "", None);
    let part = |remedy: &Remedy| {
        let (verb, kind, field) = remedy.parts();
        let same_verb = before.0 == verb;
        let same_kind = same_verb && before.1 == kind;
        let same_field = same_kind && before.2 == Some(field);
        before = (verb, kind, Some(field));
        let named = match remedy {
            Remedy::Set(_, value) if same_field => value.clone(),
            Remedy::Set(_, value) => format!("{} {value}", name(field)),
            Remedy::Validate(op, fields) => {
                let fields: Vec<_> = fields.iter().map(|field| name(*field)).collect();
                format!("`ornstein validate {op}` with the same {}", fields.join(" and "))
            }
            _ => name(field),
        };
        let verb = if same_verb { "" } else { verb };
        let kind = if same_kind { "" } else { kind };
        format!("{verb}{kind}{named}")
    };
    let mut parts: Vec<String> = remedies.iter().map(part).collect();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() { last } else { format!("{} or {last}", parts.join(", ")) }
}

/// How a voice names a field.
pub type Name = fn(Field) -> String;

/// What is wrong, where, with which field, and what may help. Made from a text, by `into`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The file, key or node; empty where there is none to name.
    pub place: String,
    /// The field whose value `what` begins with.
    pub field: Option<Field>,
    /// What is wrong, without the place, the field's name and the remedies.
    pub what: String,
    /// What may help, the best first.
    pub remedies: Vec<Remedy>,
    /// The line of a text in which it is wrong, and one below it that points there; empty without such a text.
    pub excerpt: Vec<String>,
}

impl<T: Into<String>> From<T> for Message {
    fn from(what: T) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
}

impl Message {
    /// What is wrong at a place.
    pub fn at(place: impl Display, what: impl Display) -> Self {
        Self { place: place.to_string(), ..what.to_string().into() }
    }

    /// Puts a place before it.
    pub fn on(self, place: impl Display) -> Self {
        let place = if self.place.is_empty() { place.to_string() } else { format!("{place}: {}", self.place) };
        Self { place, ..self }
    }

    /// Names the field whose value the text begins with.
    pub fn of(self, field: Field) -> Self {
        Self { field: Some(field), ..self }
    }

    /// Adds what may help.
    pub fn remedies(mut self, remedies: impl IntoIterator<Item = Remedy>) -> Self {
        self.remedies.extend(remedies);
        self
    }

    /// Shows the line in which it is wrong, at this byte of it.
    pub fn showing(self, line: &str, at: usize) -> Self {
        Self { excerpt: pointing(line, at).into(), ..self }
    }

    /// The whole text in one line, with fields named as `name` does.
    pub fn said(&self, name: Name) -> String {
        let place = if self.place.is_empty() { "" } else { ": " };
        let field = self.field.map(|field| name(field) + " ").unwrap_or_default();
        let end = if self.remedies.is_empty() { "" } else { "; " };
        message(format_args!("{}{place}{field}{}{end}{}", self.place, self.what, sentence(&self.remedies, name)))
    }
}

/// Characters of a line that are shown before the place in it, and in all.
const SHOWN: [usize; 2] = [48, 72];

/// A line without its indentation, and one below it that points to a byte of it.
fn pointing(line: &str, at: usize) -> [String; 2] {
    let (before, rest) = line.split_at(line.floor_char_boundary(at));
    let [before, rest] = [before.trim_start(), rest].map(|text| shown(text, text.len()).chars().collect::<Vec<_>>());
    let cut = before.len().saturating_sub(SHOWN[0]);
    let dots = if cut > 0 { ".." } else { "" };
    let before: String = dots.chars().chain(before.into_iter().skip(cut)).collect();
    let column = before.chars().count();
    let line: String = before.chars().chain(rest.into_iter().take(SHOWN[1] - column)).collect();
    [line.trim_end().into(), format!("{:column$}^", "")]
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.said(|field| field.word().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_field_and_its_remedies_in_each_voice() {
        let message = Message::from("30 is too many").of(Field::Steps).on("x").on("y").remedies([
            Remedy::set(Field::Dtype, "f16"),
            Remedy::Less(Field::Width),
            Remedy::Less(Field::Height),
            Remedy::Without(Field::ClipSkip),
        ]);
        assert_eq!(
            message.to_string(),
            "y: x: steps 30 is too many; try dtype f16, a smaller width, height or leave out clip skip"
        );
        assert!(message.said(|field| format!("{field:?}")).ends_with("a smaller Width, Height or leave out ClipSkip"));
    }

    #[test]
    fn an_excerpt_points_into_its_line() {
        assert_eq!(pointing("    let ß\t= = 1;", 13), ["let ß = = 1;", "        ^"]);
        let [line, caret] = pointing(&format!("{}!{}", "x".repeat(200), "y".repeat(200)), 200);
        assert_eq!((line.len(), line.find('!'), caret.find('^')), (72, Some(50), Some(50)));
        assert_eq!(pointing("end", 99), ["end", "   ^"]);
    }

    #[test]
    fn several_values_of_one_field_name_it_once() {
        let message = Message::from("no").remedies(["a", "b", "c"].map(|name| Remedy::set(Field::Sampler, name)));
        assert_eq!(message.to_string(), "no; try sampler a, b or c");
    }

    #[test]
    fn a_check_is_named_with_what_it_needs() {
        let remedy = Remedy::Validate("add".into(), &[Field::Device, Field::Shaders]);
        let message = Message::from("no").remedies([remedy]);
        assert_eq!(message.to_string(), "no; see `ornstein validate add` with the same device and shaders");
    }

    #[test]
    fn a_message_without_remedies_is_its_text() {
        assert_eq!(Message::from("this").to_string(), "this");
    }
}
