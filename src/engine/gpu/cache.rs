//! What is kept on disk between runs: compiled pipelines and the choice of kernels. A cache that cannot be read or written
//! is none.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The directory: `VI4DVAR_CACHE`, else `vi4dvar` in the platform's directory for caches. None where there is neither, or
/// where `VI4DVAR_CACHE` is empty.
fn directory() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(path) = given("VI4DVAR_CACHE") {
        return (!path.as_os_str().is_empty()).then_some(path);
    }
    let home = || given("HOME").filter(|home| home.is_absolute());
    let caches = if cfg!(windows) {
        given("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        given("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| home().map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("vi4dvar"))
}

/// A file of the cache.
#[derive(Clone, Debug)]
pub struct CacheFile(Option<PathBuf>);

impl CacheFile {
    /// The file of that name; anything but letters, digits, dots, dashes and underscores becomes a dash.
    pub fn named(name: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).take(200).collect();
        Self(directory().map(|directory| directory.join(name)))
    }

    /// What was written, if it is there and whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        unseal(&std::fs::read(self.0.as_ref()?).ok()?).map(<[u8]>::to_vec)
    }

    /// Writes the whole file or nothing, whoever else writes at the same time.
    pub fn write(&self, bytes: &[u8]) {
        let Some(path) = &self.0 else { return };
        // Nobody needs to know: without a cache everything is only slower.
        let _ = write_whole(path, bytes);
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&checksum(bytes).to_le_bytes())?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// What follows the checksum, if that is right.
fn unseal(file: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = file.split_at_checked(8)?;
    (sum == checksum(bytes).to_le_bytes()).then_some(bytes)
}

/// 64-bit FNV-1a (RFC 9923): of a file cut short or overwritten in part, it is another.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_whole_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("file");
        let file = CacheFile(Some(path.clone()));
        assert_eq!(file.read(), None);
        file.write(b"pipelines");
        assert_eq!(file.read().as_deref(), Some(&b"pipelines"[..]));
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(file.read(), None, "cut to {cut} bytes");
        }
        for at in 0..whole.len() {
            let mut corrupt = whole.clone();
            corrupt[at] ^= 0x10;
            std::fs::write(&path, &corrupt).unwrap();
            assert_eq!(file.read(), None, "byte {at} overwritten");
        }
        file.write(b"anew");
        assert_eq!(file.read().as_deref(), Some(&b"anew"[..]));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"in the way").unwrap();
        let file = CacheFile(Some(path.join("below")));
        file.write(b"lost");
        assert_eq!(file.read(), None);
    }
}
