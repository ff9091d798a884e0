//! Walks a file's header before anything trusts it: every count and every variable must lie inside the file.
//!
//! The NetCDF crate believes what a header says. A damaged one can make it reserve gigabytes or overflow, and it
//! notices a file that was cut short only where it reads. This walk goes first and holds on to nothing.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const DIMENSIONS: u32 = 0x0a;
const VARIABLES: u32 = 0x0b;
const ATTRIBUTES: u32 = 0x0c;

/// Refuses a file that is not NetCDF classic or 64-bit offset, is cut short, or has a header that cannot be true.
pub(super) fn check(path: &Path, file: &File) -> Result<()> {
    let length = file.metadata().map_err(|e| unreadable(path, &e))?.len();
    let mut walk = Walk { path, input: BufReader::new(file), position: 0, length };
    let wide_offsets = walk.magic()?;
    let records = u64::from(walk.word()?);
    if records == u64::from(u32::MAX) {
        return Err(Error::file(path, "its number of records was left open", "write it again with a known length"));
    }

    let mut dimensions = Vec::new();
    for _ in 0..walk.list(DIMENSIONS, 8)? {
        walk.name()?;
        dimensions.push(walk.count()?);
    }
    walk.attributes()?;

    // (name, begin, bytes of one record or of the whole, is it a record variable?)
    let mut variables = Vec::new();
    for _ in 0..walk.list(VARIABLES, 28)? {
        let name = walk.name()?;
        let rank = walk.counted(4)?;
        let mut sizes = Vec::new();
        for _ in 0..rank {
            let id = walk.count()?;
            sizes.push(*usize::try_from(id).ok().and_then(|id| dimensions.get(id)).ok_or_else(|| walk.damaged())?);
        }
        walk.attributes()?;
        let width = walk.type_width()?;
        walk.word()?; // The size that the header claims: redundant, and wrong by design for large variables.
        let begin =
            if wide_offsets { (u64::from(walk.word()?) << 32) | u64::from(walk.word()?) } else { walk.count()? };
        let recorded = sizes.first() == Some(&0);
        let bytes = sizes[usize::from(recorded)..].iter().try_fold(width, |product, size| product.checked_mul(*size));
        variables.push((name, begin, bytes.filter(|b| *b <= u64::MAX / 8).ok_or_else(|| walk.damaged())?, recorded));
    }

    let padded = |bytes: u64| bytes.next_multiple_of(4);
    let recorded: Vec<u64> = variables.iter().filter(|v| v.3).map(|v| v.2).collect();
    if let [alone] = recorded[..]
        && padded(alone) != alone
    {
        // The format drops the padding in this one case, the NetCDF crate does not.
        return Err(Error::file(path, "a single record variable of small integers", "write it as floats"));
    }
    let record = recorded.iter().try_fold(0u64, |sum, bytes| sum.checked_add(padded(*bytes)));
    for (name, begin, bytes, recorded) in &variables {
        let before_last = match (recorded, records) {
            (true, 0) => continue,
            (true, _) => records - 1,
            (false, _) => 0,
        };
        let end = record
            .and_then(|record| record.checked_mul(before_last))
            .and_then(|skipped| skipped.checked_add(*bytes)?.checked_add(*begin));
        if end.is_none_or(|end| end > length) {
            return Err(Error::file(
                path,
                format!(
                    "truncated or damaged: variable `{name}` should end at byte {}, the file has {length}",
                    end.map_or_else(|| "(beyond any file)".into(), |e| e.to_string())
                ),
                "copy or write it again",
            ));
        }
    }
    Ok(())
}

/// The error of a file that the system will not read.
pub(super) fn unreadable(path: &Path, reason: &std::io::Error) -> Error {
    let help = if reason.kind() == std::io::ErrorKind::NotFound { "check the name" } else { "check the permissions" };
    Error::file(path, format!("cannot be read ({reason})"), help)
}

struct Walk<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    position: u64,
    length: u64,
}

impl Walk<'_> {
    /// Reads the first four bytes; true where offsets take eight bytes.
    fn magic(&mut self) -> Result<bool> {
        let mut magic = Vec::new();
        self.input.by_ref().take(4).read_to_end(&mut magic).map_err(|e| unreadable(self.path, &e))?;
        self.position = 4;
        match magic[..] {
            [b'C', b'D', b'F', 1] => Ok(false),
            [b'C', b'D', b'F', 2] => Ok(true),
            [b'C', b'D', b'F', 5] | [0x89, b'H', b'D', b'F'] => Err(Error::file(
                self.path,
                "expected NetCDF classic or 64-bit offset, found NetCDF-4 or CDF-5",
                "convert it, for example with `nccopy -k nc6` or xarray's to_netcdf(format=\"NETCDF3_64BIT\")",
            )),
            _ => Err(Error::file(
                self.path,
                format!("expected a NetCDF file, which begins with CDF, found {} bytes of something else", self.length),
                "give a NetCDF classic file",
            )),
        }
    }

    fn attributes(&mut self) -> Result<()> {
        for _ in 0..self.list(ATTRIBUTES, 12)? {
            self.name()?;
            let width = self.type_width()?;
            let count = self.counted(width)?;
            self.skip((count * width).next_multiple_of(4))?;
        }
        Ok(())
    }

    /// The length of a tagged list whose entries take at least `entry` bytes; 0 where the list is absent.
    fn list(&mut self, tag: u32, entry: u64) -> Result<u64> {
        let found = self.word()?;
        let count = self.counted(entry)?;
        if found == tag || (found == 0 && count == 0) { Ok(count) } else { Err(self.damaged()) }
    }

    fn type_width(&mut self) -> Result<u64> {
        match self.word()? {
            1 | 2 => Ok(1),
            3 => Ok(2),
            4 | 5 => Ok(4),
            6 => Ok(8),
            _ => Err(self.damaged()),
        }
    }

    fn name(&mut self) -> Result<String> {
        let length = self.counted(1)?;
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(length).read_to_end(&mut bytes);
        read.map_err(|e| unreadable(self.path, &e))?;
        self.position += length;
        self.skip(length.next_multiple_of(4) - length)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A count of things of which each takes `entry` bytes of what is left of the file.
    fn counted(&mut self, entry: u64) -> Result<u64> {
        let count = self.count()?;
        if count * entry > self.length - self.position { Err(self.damaged()) } else { Ok(count) }
    }

    /// A number of 31 bits.
    fn count(&mut self) -> Result<u64> {
        let word = self.word()?;
        if word > i32::MAX as u32 { Err(self.damaged()) } else { Ok(u64::from(word)) }
    }

    fn word(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        if self.length.saturating_sub(self.position) < 4 {
            return Err(self.damaged());
        }
        self.input.read_exact(&mut word).map_err(|e| unreadable(self.path, &e))?;
        self.position += 4;
        Ok(u32::from_be_bytes(word))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.length - self.position {
            return Err(self.damaged());
        }
        self.input.seek_relative(bytes as i64).map_err(|e| unreadable(self.path, &e))?;
        self.position += bytes;
        Ok(())
    }

    fn damaged(&self) -> Error {
        Error::file(
            self.path,
            format!("truncated or damaged: its header breaks off at byte {} of {}", self.position, self.length),
            "copy or write it again",
        )
    }
}
