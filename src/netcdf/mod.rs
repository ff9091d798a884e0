//! NetCDF classic files as this crate reads and writes them: nothing here knows what the variables mean.

mod attributes;
mod header;
mod reader;
mod writer;

pub use attributes::{AttributeValue, Attributes};
pub(crate) use reader::Reader;
pub(crate) use writer::Writer;
pub use writer::{check_size, check_writable, write_bytes, write_text};
