//! Writes a NetCDF file (64-bit offset) that appears whole or not at all, the same bytes for the same content.

use super::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use ndarray::{CowArray, Dimension, IxDyn};
use netcdf3::{DataSet, DataType, FileWriter, InvalidDataSet, Version, WriteError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;
use tempfile::NamedTempFile;

/// Most bytes that one variable may take.
const VARIABLE_LIMIT: u64 = (1 << 32) - 4;

/// Refuses a variable of doubles that the format cannot hold (4 GiB). Cheap: ask before computing.
///
/// # Errors
/// The variable with its size.
pub fn check_size(variable: &str, shape: &[usize]) -> Result<()> {
    let numbers = shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n as u64));
    match numbers.and_then(|n| n.checked_mul(8)) {
        Some(bytes) if bytes <= VARIABLE_LIMIT => Ok(()),
        bytes => Err(Error::invalid(
            format!("variable `{variable}` of shape {shape:?}"),
            format!("at most {VARIABLE_LIMIT} bytes (4 GiB, the limit of NetCDF's 64-bit offset format)"),
            bytes.map_or_else(|| "more than can be counted".into(), |b| format!("{b} bytes")),
            "write fewer members or samples to a file, or fewer times",
        )),
    }
}

/// Refuses a path that could not be written. Cheap: ask before computing.
///
/// # Errors
/// Something is there already and `overwrite` is false; it is a directory; the directory is missing or read-only.
pub fn check_writable(path: impl AsRef<Path>, overwrite: bool) -> Result<()> {
    let path = path.as_ref();
    check_free(path, overwrite)?;
    temporary_beside(path).map(drop)
}

fn check_free(path: &Path, overwrite: bool) -> Result<()> {
    if path.file_name().is_none() || path.is_dir() {
        return Err(Error::file(path, "expected the name of a file to write, found a directory", "add a file name"));
    }
    if let Ok(found) = path.symlink_metadata() {
        if !overwrite {
            return Err(exists(path));
        }
        if !found.is_file() {
            let message = "expected a plain file to replace, found a link or a device";
            return Err(Error::file(path, message, "name the file itself"));
        }
    }
    let directory = directory(path);
    if !directory.is_dir() {
        let what = if directory.symlink_metadata().is_ok() { "is not a directory" } else { "does not exist" };
        return Err(Error::file(
            path,
            format!("cannot be written: {} {what}", directory.display()),
            "create the directory, or choose another",
        ));
    }
    Ok(())
}

fn exists(path: &Path) -> Error {
    Error::file(path, "exists already and would be overwritten", "choose another name, or allow it with --force")
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file in the directory of `path`, removed again unless it is renamed. Its name is always the same, so that what a killed
/// process left there goes away with the next one's.
fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let open = |place: &Path| {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(place)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::Error::other("another process is writing the file"));
        }
        file.set_len(0)?;
        Ok(file)
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(".part").rand_bytes(0);
    builder.make_in(directory(path), open).map_err(|reason| {
        Error::file(
            path,
            format!("cannot be written: nothing can be created in {} ({reason})", directory(path).display()),
            "check the permissions and the disk",
        )
    })
}

/// Writes a text file. It appears whole or not at all.
///
/// # Errors
/// Something is there already and `overwrite` is false; a failing disk. On failure nothing is left behind.
pub fn write_text(path: impl AsRef<Path>, text: &str, overwrite: bool) -> Result<()> {
    write_bytes(path, text.as_bytes(), overwrite)
}

/// Writes a file of any kind. It appears whole or not at all.
///
/// # Errors
/// As [`write_text`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8], overwrite: bool) -> Result<()> {
    let path = path.as_ref();
    check_free(path, overwrite)?;
    write_whole(path, overwrite, |mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    })
}

/// Fills a file beside its place, then moves it there.
fn write_whole(path: &Path, overwrite: bool, fill: impl FnOnce(&std::fs::File) -> io::Result<()>) -> Result<()> {
    let temporary = temporary_beside(path)?;
    let failed = |reason| Error::Write { path: path.to_owned(), reason };
    fill(temporary.as_file()).map_err(failed)?;
    if overwrite {
        temporary.persist(path).map_err(|e| failed(e.error))?;
    } else {
        temporary.persist_noclobber(path).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => failed(e.error),
        })?;
    }
    Ok(())
}

/// The content of a file to be. Dimensions take their sizes from the arrays.
#[derive(Default)]
pub(crate) struct Writer<'a> {
    dimensions: Vec<(&'a str, usize)>,
    variables: Vec<Variable<'a>>,
    attributes: Attributes,
}

struct Variable<'a> {
    name: &'a str,
    dimensions: Vec<&'a str>,
    units: &'a str,
    long_name: &'a str,
    values: Values<'a>,
}

enum Values<'a> {
    Numbers(CowArray<'a, f64, IxDyn>),
    Flags(Vec<i8>),
}

impl<'a> Writer<'a> {
    /// Sets global attributes; a name that is already set keeps its value.
    pub(crate) fn attributes(&mut self, attributes: &Attributes) {
        self.attributes.fill_from(attributes);
    }

    /// Adds a variable of doubles.
    ///
    /// # Errors
    /// A name twice, a dimension of another size than before, an axis without elements, or too large.
    pub(crate) fn numbers<D: Dimension>(
        &mut self,
        name: &'a str,
        dimensions: &[&'a str],
        units: &'a str,
        long_name: &'a str,
        values: impl Into<CowArray<'a, f64, D>>,
    ) -> Result<()> {
        let values = values.into().into_dyn();
        check_size(name, values.shape())?;
        let shape = values.shape().to_vec();
        let dimensions = dimensions.to_vec();
        self.add(Variable { name, dimensions, units, long_name, values: Values::Numbers(values) }, &shape)
    }

    /// Adds a variable of bytes, 1 for true, over one dimension.
    ///
    /// # Errors
    /// As for [`Self::numbers`].
    pub(crate) fn flags(
        &mut self,
        name: &'a str,
        dimension: &'a str,
        long_name: &'a str,
        values: &[bool],
    ) -> Result<()> {
        let shape = [values.len()];
        let values = Values::Flags(values.iter().map(|v| i8::from(*v)).collect());
        self.add(Variable { name, dimensions: vec![dimension], units: "1", long_name, values }, &shape)
    }

    fn add(&mut self, variable: Variable<'a>, shape: &[usize]) -> Result<()> {
        let name = variable.name;
        if self.variables.iter().any(|v| v.name == name) {
            let what = format!("variable `{name}`");
            return Err(Error::invalid(what, "a name of its own", "another variable of that name", "rename it"));
        }
        if shape.len() != variable.dimensions.len() {
            return Err(Error::invalid(
                format!("variable `{name}`"),
                format!("one axis for each of ({})", variable.dimensions.join(", ")),
                format!("shape {shape:?}"),
                "name every axis",
            ));
        }
        for (dimension, size) in variable.dimensions.iter().zip(shape) {
            let known = self.dimensions.iter().find(|(known, _)| known == dimension).map(|(_, size)| *size);
            if *size == 0 || known.is_some_and(|known| known != *size) {
                return Err(Error::invalid(
                    format!("variable `{name}`, dimension `{dimension}`"),
                    known.map_or_else(|| "at least one element".into(), |k| format!("{k} elements")),
                    size.to_string(),
                    "use one size for each dimension of a file",
                ));
            }
            if known.is_none() {
                self.dimensions.push((dimension, *size));
            }
        }
        self.variables.push(variable);
        Ok(())
    }

    /// Writes the file beside its place, then moves it there.
    pub(crate) fn write(self, path: &Path, overwrite: bool) -> Result<()> {
        check_free(path, overwrite)?;
        let definition = self.definition().map_err(|reason| {
            Error::invalid(
                format!("content of {}", path.display()),
                "valid NetCDF names",
                format!("{reason:?}"),
                "rename",
            )
        })?;
        write_whole(path, overwrite, |file| self.fill(file, &definition))
    }

    fn definition(&self) -> std::result::Result<DataSet, InvalidDataSet> {
        let mut set = DataSet::new();
        for (name, size) in &self.dimensions {
            set.add_fixed_dim(name, *size)?;
        }
        for (name, value) in self.attributes.iter() {
            match value {
                AttributeValue::Text(text) => set.add_global_attr_string(name, text)?,
                AttributeValue::Number(number) => set.add_global_attr_f64(name, vec![*number])?,
                AttributeValue::Integer(integer) => match i32::try_from(*integer) {
                    Ok(integer) => set.add_global_attr_i32(name, vec![integer])?,
                    Err(_) => set.add_global_attr_string(name, integer.to_string())?,
                },
            }
        }
        for v in &self.variables {
            set.add_var(v.name, &v.dimensions, v.values.data_type())?;
            set.add_var_attr_string(v.name, "long_name", v.long_name)?;
            set.add_var_attr_string(v.name, "units", v.units)?;
        }
        Ok(set)
    }

    fn fill(&self, file: &File, definition: &DataSet) -> io::Result<()> {
        let sink = Sink(Rc::new(RefCell::new(BufWriter::with_capacity(1 << 20, file.try_clone()?))));
        let reason = |error| match error {
            WriteError::IOErrorKind(kind) => io::Error::from(kind),
            other => io::Error::other(format!("{other:?}")),
        };
        let mut writer = FileWriter::open_seek_write("", Box::new(sink.clone())).map_err(reason)?;
        writer.set_def(definition, Version::Offset64Bit, 0).map_err(reason)?;
        for v in &self.variables {
            match &v.values {
                Values::Numbers(array) => {
                    let array = array.as_standard_layout();
                    writer.write_var_f64(v.name, array.as_slice().unwrap_or_default())
                }
                Values::Flags(flags) => writer.write_var_i8(v.name, flags),
            }
            .map_err(reason)?;
        }
        writer.close().map_err(reason)?;
        sink.0.borrow_mut().flush()?;
        file.sync_all()
    }
}

impl Values<'_> {
    fn data_type(&self) -> DataType {
        match self {
            Self::Numbers(_) => DataType::F64,
            Self::Flags(_) => DataType::I8,
        }
    }
}

/// A buffer that stays ours while the NetCDF writer owns its output: the writer drops what it is given without a
/// flush that could fail, and a full disk would go unnoticed.
#[derive(Clone)]
struct Sink(Rc<RefCell<BufWriter<File>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All of it: the NetCDF writer does not look at how much was taken.
        self.0.borrow_mut().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.borrow_mut().seek(to)
    }
}
