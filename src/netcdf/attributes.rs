//! Global attributes of a file: an ordered list of names with a text or a number each.

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// UTF-8 text.
    Text(String),
    /// A real number.
    Number(f64),
    /// An integer. The format knows 32 bits only: a larger one is written as decimal text and comes back as text.
    Integer(u64),
}

/// What a result file says about its origin: settings, seed, adapter, version. Order is kept, names are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(String, AttributeValue)>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an attribute: in its place where the name is known, else at the end.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
        self
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All attributes in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds those of `other` whose names are not taken yet.
    pub(crate) fn fill_from(&mut self, other: &Self) {
        for (name, value) in other.iter() {
            if self.get(name).is_none() {
                self.set(name, value.clone());
            }
        }
    }
}

impl std::fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Integer(integer) => write!(f, "{integer}"),
        }
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for AttributeValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for AttributeValue {
    fn from(integer: u64) -> Self {
        Self::Integer(integer)
    }
}

impl From<usize> for AttributeValue {
    fn from(integer: usize) -> Self {
        Self::Integer(integer as u64)
    }
}
