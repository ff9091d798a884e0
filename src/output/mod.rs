//! What goes into files: one sink per file, with the readers that give it back.

mod analysis;
mod cycles;
mod evaluation;
mod figures;
mod members;
mod report;
mod scores;

pub use crate::netcdf::{AttributeValue, Attributes, check_size, check_writable, write_bytes, write_text};
pub use analysis::{SavedAnalysis, read_analysis, write_analysis};
pub use cycles::{check_cycles, write_cycle_scores, write_cycles};
pub use evaluation::write_evaluation;
pub use figures::{
    Figure, batches, check_figure, check_figures, cycle_figures, error_figure, figures, growth_figure, latent_figure,
    loss_figure, sbc_figure, throughput, write_figures, write_or_clear_figure,
};
pub use members::{read_members, write_members};
pub use report::{MethodReport, Report, Table, hardware_facts, problem_facts, write_report};
pub use scores::{write_scores, write_timings};
