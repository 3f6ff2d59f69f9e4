//! Normalization. Of groups of channels it is two nodes, [`group_norm_stats`] and [`group_norm`], or where a group
//! fits into one workgroup [`group_norm_whole`]; of a row's channels it is [`layer_norm`].

pub mod group_norm;
pub mod group_norm_stats;
pub mod group_norm_whole;
pub mod layer_norm;
