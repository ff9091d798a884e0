//! Reads variables and attributes of a NetCDF classic file; every refusal names the file and the variable.

use super::header::{self, unreadable};
use super::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use ndarray::{ArrayD, Dimension};
use netcdf3::{Attribute, DataType, DataVector, FileReader, NC_FILL_F32, NC_FILL_F64};
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};

/// An open file.
pub(crate) struct Reader {
    path: PathBuf,
    file: FileReader,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Before it is opened: that of a pipe would wait for someone who writes.
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            return Err(Error::file(path, "expected a NetCDF file, found something else", "give a regular file"));
        }
        let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
        header::check(path, &file)?;
        file.rewind().map_err(|e| unreadable(path, &e))?;
        let file = FileReader::open_seek_read("", Box::new(file)).map_err(|e| damaged(path, &e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// An [`Error::File`] for this file.
    pub(crate) fn refuse(&self, message: impl Into<String>, help: impl Into<String>) -> Error {
        Error::file(&self.path, message, help)
    }

    /// Names this file in a refusal of what was read from it.
    pub(crate) fn name_file<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Invalid { what, expected, found, help } => {
                self.refuse(format!("{what}: expected {expected}, found {found}"), help)
            }
            other => other,
        })
    }

    /// Names of all variables, in the order of the file.
    pub(crate) fn variables(&self) -> Vec<String> {
        self.file.data_set().get_var_names()
    }

    pub(crate) fn has(&self, variable: &str) -> bool {
        self.file.data_set().has_var(variable)
    }

    /// Names of a variable's dimensions.
    pub(crate) fn dimensions(&self, variable: &str) -> Result<Vec<String>> {
        match self.file.data_set().get_var(variable) {
            Some(v) => Ok(v.dim_names()),
            None => {
                let found = self.variables().join(", ");
                let found = if found.is_empty() { "none at all".into() } else { found };
                Err(self.refuse(format!("expected a variable `{variable}`, found {found}"), "add the variable"))
            }
        }
    }

    /// A variable over exactly these dimensions, missing values as NaN.
    pub(crate) fn numbers<D: Dimension>(
        &mut self,
        variable: &str,
        dimensions: &[&str],
    ) -> Result<ndarray::Array<f64, D>> {
        let found = self.dimensions(variable)?;
        if found != dimensions {
            let (expected, found) = (dimensions.join(", "), found.join(", "));
            let message = format!("variable `{variable}`: expected dimensions ({expected}), found ({found})");
            return Err(self.refuse(message, "rename or transpose them"));
        }
        self.values(variable)?.into_dimensionality().map_err(|e| damaged(&self.path, &e))
    }

    /// A variable of any shape, missing values as NaN.
    pub(crate) fn values(&mut self, variable: &str) -> Result<ArrayD<f64>> {
        let data_set = self.file.data_set();
        let attribute = |name| data_set.get_var_attr(variable, name).and_then(number);
        if attribute("scale_factor").is_some() || attribute("add_offset").is_some() {
            let message = format!("variable `{variable}`: expected plain numbers, found packed ones (scale_factor)");
            return Err(self.refuse(message, "write it unpacked"));
        }
        let default_fill = match data_set.var_data_type(variable) {
            Some(DataType::F32) => f64::from(NC_FILL_F32),
            Some(DataType::F64) => NC_FILL_F64,
            _ => f64::NAN,
        };
        let missing = [attribute("_FillValue").unwrap_or(default_fill), attribute("missing_value").unwrap_or(f64::NAN)];
        let dims = data_set.get_var(variable).map(netcdf3::Variable::get_dims).unwrap_or_default();
        let shape: Vec<usize> = dims.iter().map(|d| d.size()).collect();
        let mut values = match self.file.read_var(variable).map_err(|e| damaged(&self.path, &e))? {
            DataVector::F64(v) => v,
            DataVector::F32(v) => v.into_iter().map(f64::from).collect(),
            DataVector::I32(v) => v.into_iter().map(f64::from).collect(),
            DataVector::I16(v) => v.into_iter().map(f64::from).collect(),
            DataVector::I8(v) => v.into_iter().map(f64::from).collect(),
            DataVector::U8(_) => {
                let message = format!("variable `{variable}`: expected numbers, found text");
                return Err(self.refuse(message, "write it as float or double"));
            }
        };
        for value in &mut values {
            if missing.contains(value) {
                *value = f64::NAN;
            }
        }
        ArrayD::from_shape_vec(shape, values).map_err(|e| damaged(&self.path, &e))
    }

    /// The text of a variable's attribute; empty where there is none.
    pub(crate) fn text_of(&self, variable: &str, name: &str) -> String {
        self.file.data_set().get_var_attr_as_string(variable, name).unwrap_or_default()
    }

    /// All global attributes; lists of numbers are left out.
    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        for attribute in self.file.data_set().get_global_attrs() {
            if let Some(value) = value(attribute) {
                attributes.set(attribute.name(), value);
            }
        }
        attributes
    }

    /// Refuses a file of another kind: one without a global attribute that every `kind` has.
    pub(crate) fn expect_kind(&self, kind: &str, attribute: &str, help: &str) -> Result<()> {
        if self.file.data_set().has_global_attr(attribute) {
            return Ok(());
        }
        Err(self.refuse(format!("expected {kind}, found a file without the global attribute `{attribute}`"), help))
    }

    /// A global attribute that must be text.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        match self.attributes().get(name) {
            Some(AttributeValue::Text(text)) => Ok(text.clone()),
            other => Err(self.wrong_attribute(name, "a text", other)),
        }
    }

    /// A global attribute that must be a number.
    pub(crate) fn number(&self, name: &str) -> Result<f64> {
        match self.attributes().get(name) {
            Some(AttributeValue::Number(number)) => Ok(*number),
            Some(AttributeValue::Integer(integer)) => Ok(*integer as f64),
            other => Err(self.wrong_attribute(name, "a number", other)),
        }
    }

    /// A global attribute that must be a whole number >= 0: an integer, a float without a fraction, or decimal text.
    /// `default` serves where there is no such attribute.
    pub(crate) fn integer(&self, name: &str, default: Option<u64>) -> Result<u64> {
        const EXACT: f64 = (1u64 << 53) as f64;
        let attributes = self.attributes();
        let found = attributes.get(name);
        let integer = match found {
            None if !self.file.data_set().has_global_attr(name) => default,
            Some(AttributeValue::Integer(integer)) => Some(*integer),
            Some(AttributeValue::Number(x)) if x.fract() == 0.0 && (0.0..=EXACT).contains(x) => Some(*x as u64),
            Some(AttributeValue::Text(text)) => text.parse().ok(),
            _ => None,
        };
        integer.ok_or_else(|| self.wrong_attribute(name, "a whole number >= 0", found))
    }

    fn wrong_attribute(&self, name: &str, expected: &str, found: Option<&AttributeValue>) -> Error {
        let found = match found {
            Some(value) => value.to_string(),
            None if self.file.data_set().has_global_attr(name) => "something else".into(),
            None => "none".into(),
        };
        self.refuse(format!("global attribute `{name}`: expected {expected}, found {found}"), "set the attribute")
    }
}

fn damaged(path: &Path, reason: &dyn std::fmt::Debug) -> Error {
    Error::file(path, format!("damaged ({reason:?})"), "copy or write it again")
}

/// The value of an attribute that holds one text or one number.
fn value(attribute: &Attribute) -> Option<AttributeValue> {
    if let Some(text) = attribute.get_as_string() {
        return Some(AttributeValue::Text(text));
    }
    let number = number(attribute)?;
    let whole = !matches!(attribute.data_type(), DataType::F32 | DataType::F64) && number >= 0.0;
    Some(if whole { AttributeValue::Integer(number as u64) } else { AttributeValue::Number(number) })
}

/// The number of an attribute that holds exactly one.
fn number(attribute: &Attribute) -> Option<f64> {
    match attribute.data_type() {
        DataType::U8 => None,
        DataType::I8 => attribute.get_i8().and_then(single).map(f64::from),
        DataType::I16 => attribute.get_i16().and_then(single).map(f64::from),
        DataType::I32 => attribute.get_i32().and_then(single).map(f64::from),
        // What was meant is the shortest decimal: 0.05, and not 0.05000000074505806.
        DataType::F32 => attribute.get_f32().and_then(single).and_then(|v| v.to_string().parse().ok()),
        DataType::F64 => attribute.get_f64().and_then(single),
    }
}

fn single<T: Copy>(values: &[T]) -> Option<T> {
    if let [value] = values { Some(*value) } else { None }
}
