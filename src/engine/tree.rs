//! Sums in one order, whatever the chunks, threads and ranks: a binary tree over the numbered blocks of one problem.

use serde::{Deserialize, Serialize};

/// A sum over some blocks.
pub trait Merge {
    /// Adds the sum over as many blocks, or fewer, that follow.
    fn merge(&mut self, right: &Self);
}

/// The sum over contiguous blocks, in as few whole nodes of the tree as there can be: those over 2^level blocks from a
/// multiple of 2^level on. Whoever adds the blocks of a node adds them alike, so that sums over parts of the blocks can be made
/// anywhere and joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Node<T> {
    level: u32,
    /// Its place among those of its level.
    index: usize,
    sum: T,
}

impl<T: Merge> Node<T> {
    /// Whether it is the left half of a node, of which this one is the right half.
    fn precedes(&self, level: u32, index: usize) -> bool {
        self.level == level && index % 2 == 1 && self.index == index - 1
    }

    /// The node of which it is the left half.
    fn merged(mut self, right: &T) -> Self {
        self.sum.merge(right);
        Self { level: self.level + 1, index: self.index / 2, sum: self.sum }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T: Merge> Tree<T> {
    /// Adds the block that follows.
    pub fn push(&mut self, block: usize, sum: T) {
        self.add(Node { level: 0, index: block, sum });
    }

    /// Adds the blocks that follow.
    pub fn append(&mut self, right: Self) {
        right.nodes.into_iter().for_each(|node| self.add(node));
    }

    /// Adds the block that follows, of whose sum a copy is made where it has nothing to be added to.
    pub fn push_copy(&mut self, block: usize, sum: &T)
    where
        T: Clone,
    {
        match self.nodes.pop_if(|left| left.precedes(0, block)) {
            Some(left) => self.add(left.merged(sum)),
            None => self.push(block, sum.clone()),
        }
    }

    fn add(&mut self, mut node: Node<T>) {
        while let Some(left) = self.nodes.pop_if(|left| left.precedes(node.level, node.index)) {
            node = left.merged(&node.sum);
        }
        self.nodes.push(node);
    }

    /// The sum over all blocks, if there are any.
    pub fn total(self) -> Option<T> {
        let join = |right: Node<T>, mut left: Node<T>| {
            left.sum.merge(&right.sum);
            left
        };
        self.nodes.into_iter().rev().reduce(join).map(|node| node.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum that remembers its order.
    #[derive(Clone, Debug)]
    struct Text(String);

    impl Merge for Text {
        fn merge(&mut self, right: &Self) {
            self.0 = format!("({}{})", self.0, right.0);
        }
    }

    fn tree(blocks: std::ops::Range<usize>) -> Tree<Text> {
        let mut tree = Tree::default();
        blocks.for_each(|b| match b % 3 {
            0 => tree.push(b, Text(b.to_string())),
            _ => tree.push_copy(b, &Text(b.to_string())),
        });
        tree
    }

    #[test]
    fn parts_joined_are_the_whole() {
        assert_eq!(tree(0..6).total().unwrap().0, "(((01)(23))(45))");
        assert_eq!(tree(0..7).total().unwrap().0, "(((01)(23))((45)6))");
        assert!(tree(0..0).total().is_none());
        for blocks in 1..40 {
            let whole = tree(0..blocks).total().unwrap().0;
            for first in 0..=blocks {
                for second in first..=blocks {
                    let mut parts = tree(0..first);
                    let mut right = tree(first..second);
                    right.append(tree(second..blocks));
                    parts.append(right);
                    assert_eq!(parts.total().unwrap().0, whole, "{blocks} blocks, cut at {first} and {second}");
                }
            }
        }
    }
}
