//! The texts that kernels are made from: built in, or from a directory for those who work on kernels.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

const TEMPLATES: &[(&str, &str)] = &[
    ("member.wgsl", include_str!("../../../shaders/member.wgsl")),
    ("lanes.wgsl", include_str!("../../../shaders/lanes.wgsl")),
    ("trajectory.wgsl", include_str!("../../../shaders/trajectory.wgsl")),
    ("lorenz63.wgsl", include_str!("../../../shaders/lorenz63.wgsl")),
    ("lorenz96.wgsl", include_str!("../../../shaders/lorenz96.wgsl")),
    ("rk4.wgsl", include_str!("../../../shaders/rk4.wgsl")),
    ("operator.wgsl", include_str!("../../../shaders/operator.wgsl")),
    ("cost.wgsl", include_str!("../../../shaders/cost.wgsl")),
    ("random.wgsl", include_str!("../../../shaders/random.wgsl")),
    ("exponential.wgsl", include_str!("../../../shaders/exponential.wgsl")),
    ("block.wgsl", include_str!("../../../shaders/block.wgsl")),
    ("control.wgsl", include_str!("../../../shaders/control.wgsl")),
    ("errors.wgsl", include_str!("../../../shaders/errors.wgsl")),
    ("forward.wgsl", include_str!("../../../shaders/forward.wgsl")),
    ("reverse.wgsl", include_str!("../../../shaders/reverse.wgsl")),
    ("tangent.wgsl", include_str!("../../../shaders/tangent.wgsl")),
    ("background.wgsl", include_str!("../../../shaders/background.wgsl")),
    ("fetch.wgsl", include_str!("../../../shaders/fetch.wgsl")),
    ("adam.wgsl", include_str!("../../../shaders/adam.wgsl")),
    ("draw.wgsl", include_str!("../../../shaders/draw.wgsl")),
    ("lower.wgsl", include_str!("../../../shaders/lower.wgsl")),
    ("project.wgsl", include_str!("../../../shaders/project.wgsl")),
    ("low_rank.wgsl", include_str!("../../../shaders/low_rank.wgsl")),
    ("pattern.wgsl", include_str!("../../../shaders/pattern.wgsl")),
    ("pattern_totals.wgsl", include_str!("../../../shaders/pattern_totals.wgsl")),
    ("sums.wgsl", include_str!("../../../shaders/sums.wgsl")),
    ("totals.wgsl", include_str!("../../../shaders/totals.wgsl")),
    ("select.wgsl", include_str!("../../../shaders/select.wgsl")),
    ("gather.wgsl", include_str!("../../../shaders/gather.wgsl")),
];

/// The templates of `shaders/`, some of them replaced.
#[derive(Debug, Default)]
pub struct Templates {
    replaced: HashMap<&'static str, String>,
}

impl Templates {
    /// The built-in ones, with those that the directory has in their place.
    ///
    /// # Errors
    /// No directory, none of the templates in it, or one that cannot be read.
    pub fn new(directory: Option<&Path>) -> Result<Self> {
        let mut replaced = HashMap::new();
        let Some(directory) = directory else { return Ok(Self { replaced }) };
        for (name, _) in TEMPLATES {
            let path = directory.join(name);
            if path.exists() {
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| Error::file(&path, format!("cannot be read: {e}"), "check the file"))?;
                replaced.insert(*name, text);
            }
        }
        if replaced.is_empty() {
            let names: Vec<_> = TEMPLATES.iter().map(|(name, _)| *name).collect();
            let message = format!("expected some of {}, found none of them", names.join(", "));
            return Err(Error::file(directory, message, "copy the project's folder `shaders` and change the copy"));
        }
        Ok(Self { replaced })
    }

    /// Whether none was replaced.
    pub fn are_built_in(&self) -> bool {
        self.replaced.is_empty()
    }

    /// Name and text of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        TEMPLATES.iter().map(|(name, text)| (*name, self.replaced.get(name).map_or(*text, String::as_str)))
    }
}
