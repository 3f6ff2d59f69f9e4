//! What to do about an error, as data: a change of a field of the request. The command line names fields by its flags,
//! a server by its keys; the library's own texts use plain words.

use std::fmt::{self, Display};

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
    Width "width",
    Height "height",
    Batch "batch",
    Steps "steps",
    Guidance "guidance",
    Seed "seed",
    Sampler "sampler",
    Spacing "spacing",
    Eta "eta",
    ClipSkip "clip skip",
    InitLatents "init latents",
    Lora "lora",
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
    /// Any value: there is no default.
    Give(Field),
    /// No value.
    Without(Field),
    /// What was given as something else, as this field.
    As(Field),
}

impl Remedy {
    /// That field with this value.
    pub fn set(field: Field, value: impl Display) -> Self {
        Self::Set(field, value.to_string())
    }

    /// The field to change.
    pub fn field(&self) -> Field {
        match self {
            Self::Set(field, _) => *field,
            Self::Other(field) | Self::Less(field) | Self::More(field) => *field,
            Self::Give(field) | Self::Without(field) | Self::As(field) => *field,
        }
    }

    /// What to do, and with what kind of value.
    fn words(&self) -> [&'static str; 2] {
        match self {
            Self::Set(..) => ["try ", ""],
            Self::Other(_) => ["try ", "another "],
            Self::Less(Field::Steps) => ["try ", "fewer "],
            Self::Less(_) => ["try ", "a smaller "],
            Self::More(Field::Steps) => ["try ", "more "],
            Self::More(_) => ["try ", "a larger "],
            Self::Give(_) => ["give ", ""],
            Self::Without(_) => ["leave out ", ""],
            Self::As(_) => ["give ", "it by "],
        }
    }
}

/// A sentence of several remedies: "try dtype f16, device cpu, a smaller width or height".
fn sentence(remedies: &[Remedy], name: Name) -> String {
    let (mut text, mut before) = (String::new(), ["", ""]);
    for (index, remedy) in remedies.iter().enumerate() {
        let words = remedy.words();
        text += if index == 0 {
            ""
        } else if index + 1 == remedies.len() {
            " or "
        } else {
            ", "
        };
        match (words[0] == before[0], words[1] == before[1]) {
            (true, true) => {}
            (true, false) => text += words[1],
            (false, _) => text += &words.concat(),
        }
        let again = |before: &Remedy| matches!(before, Remedy::Set(field, _) if *field == remedy.field());
        match remedy {
            Remedy::Set(_, value) if index > 0 && again(&remedies[index - 1]) => text += value,
            Remedy::Set(field, value) => text += &format!("{} {value}", name(*field)),
            _ => text += &name(remedy.field()),
        }
        before = words;
    }
    text
}

/// How a voice names a field.
pub type Name = fn(Field) -> String;

/// What is wrong, with which field, and what may help. Made from a text, by `into`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    place: String,
    /// The field whose value `what` begins with.
    pub field: Option<Field>,
    /// What is wrong, without the place, the field's name and the remedies.
    pub what: String,
    /// What may help, the best first.
    pub remedies: Vec<Remedy>,
}

impl<T: Into<String>> From<T> for Message {
    fn from(what: T) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
}

impl Message {
    /// Puts a place before it.
    pub fn on(self, place: impl Display) -> Self {
        Self { place: format!("{place}: {}", self.place), ..self }
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

    /// The whole text, with fields named as `name` does. It may hold names and texts from files as they are.
    pub fn said(&self, name: Name) -> String {
        let field = self.field.map(|field| name(field) + " ").unwrap_or_default();
        let end = if self.remedies.is_empty() { "" } else { "; " };
        format!("{}{field}{}{end}{}", self.place, self.what, sentence(&self.remedies, name))
    }
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
    fn several_values_of_one_field_name_it_once() {
        let message = Message::from("no").remedies(["a", "b", "c"].map(|name| Remedy::set(Field::Sampler, name)));
        assert_eq!(message.to_string(), "no; try sampler a, b or c");
    }

    #[test]
    fn a_message_without_remedies_is_its_text() {
        assert_eq!(Message::from("this").to_string(), "this");
    }
}
