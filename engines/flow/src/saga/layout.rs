//! Where each box of a drawing stands: layers from left to right, few crossings, straight ways.
//!
//! Sugiyama, Tagawa, Toda, 1981: break rings, give each node a layer, lay ways through the layers between,
//! order each layer by the middle of its neighbours, then give each node a height. Every choice among equals goes
//! by number, so that the same graph gives the same drawing.

/// Bends of edges that pass other layers. When a graph needs more, its longest edges are drawn straight.
const BENDS_MAX: usize = 20_000;
/// Rounds of ordering and of straightening; after these, little improves.
const ROUNDS: usize = 8;
/// The free space between two boxes above each other, and between an edge and its neighbours.
const GAP: f64 = 14.0;
const BEND_HEIGHT: f64 = 6.0;

/// A box to be placed: its size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// The drawing's measures.
#[derive(Debug)]
pub(super) struct Layout {
    /// The left end and the middle of each box.
    pub(super) boxes: Vec<(f64, f64)>,
    /// For each edge, the points it passes between its two boxes, in its direction.
    pub(super) bends: Vec<Vec<(f64, f64)>>,
    /// Which edges lead back to the left.
    pub(super) is_back: Vec<bool>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Places boxes so that edges lead to the right, but for those that close a ring. `column_gap` is the space
/// between two layers.
pub(super) fn layout(sizes: &[Size], edges: &[(usize, usize)], column_gap: f64) -> Layout {
    let is_back = back_edges(sizes.len(), edges);
    let forward: Vec<(usize, usize)> =
        edges.iter().zip(&is_back).map(|((a, b), back)| if *back { (*b, *a) } else { (*a, *b) }).collect();
    let layer = layers(sizes.len(), &forward);
    let mut plan = Plan::new(sizes, &forward, &layer);
    for round in 0..ROUNDS {
        plan.order(round % 2 == 0);
    }
    let y = plan.heights();

    let mut lefts = Vec::with_capacity(plan.columns.len());
    let mut width: f64 = 0.0;
    for column in &plan.columns {
        let widest =
            column.iter().filter_map(|node| sizes.get(*node)).map(|size| size.width).fold(0.0, f64::max);
        lefts.push((width, widest));
        width += widest + column_gap;
    }
    let middle = |node: usize| {
        let (left, widest) = lefts[plan.layer[node]];
        (left + widest / 2.0, y[node])
    };
    let boxes = (0..sizes.len()).map(|node| (middle(node).0 - sizes[node].width / 2.0, y[node])).collect();
    let bends = plan.chains.iter().zip(&is_back).map(|(chain, back)| {
        // Two points a bend, so that the edge crosses a column of boxes straight.
        let across = |node: &usize| {
            let (left, widest) = lefts[plan.layer[*node]];
            [(left, y[*node]), (left + widest, y[*node])]
        };
        let mut points: Vec<(f64, f64)> = chain.iter().flat_map(across).collect();
        if *back {
            points.reverse();
        }
        points
    });
    let bends = bends.collect();
    let low = (0..plan.layer.len()).map(|node| y[node] + plan.height(node) / 2.0).fold(0.0, f64::max);
    Layout { boxes, bends, is_back, width: (width - column_gap).max(0.0), height: low }
}

/// Which edges close a ring: those that lead to a node whose followers are just being walked.
fn back_edges(nodes: usize, edges: &[(usize, usize)]) -> Vec<bool> {
    let out = outgoing(nodes, edges);
    let has_source = edges.iter().fold(vec![false; nodes], |mut has, (_, to)| {
        has[*to] = true;
        has
    });
    let mut is_back = vec![false; edges.len()];
    let (mut seen, mut open) = (vec![false; nodes], vec![false; nodes]);
    let roots = (0..nodes).filter(|node| !has_source[*node]).chain(0..nodes);
    for root in roots {
        if seen[root] {
            continue;
        }
        (seen[root], open[root]) = (true, true);
        let mut stack = vec![(root, 0)];
        while let Some((node, at)) = stack.last_mut() {
            match out[*node].get(*at) {
                Some(edge) => {
                    *at += 1;
                    let to = edges[*edge].1;
                    is_back[*edge] = open[to];
                    if !seen[to] {
                        (seen[to], open[to]) = (true, true);
                        stack.push((to, 0));
                    }
                }
                None => {
                    open[*node] = false;
                    stack.pop();
                }
            }
        }
    }
    is_back
}

/// The numbers of the edges that leave each node.
fn outgoing(nodes: usize, edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new(); nodes];
    for (i, (from, _)) in edges.iter().enumerate() {
        out[*from].push(i);
    }
    out
}

/// The longest way to each node, over edges without a ring.
fn layers(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let out = outgoing(nodes, edges);
    let mut waits = vec![0usize; nodes];
    edges.iter().for_each(|(_, to)| waits[*to] += 1);
    let mut layer = vec![0; nodes];
    let mut ready: Vec<usize> = (0..nodes).filter(|node| waits[*node] == 0).collect();
    while let Some(node) = ready.pop() {
        for edge in &out[node] {
            let to = edges[*edge].1;
            layer[to] = layer[to].max(layer[node] + 1);
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    layer
}

/// Boxes and bends in their columns.
struct Plan<'a> {
    sizes: &'a [Size],
    /// Of boxes, then of bends.
    layer: Vec<usize>,
    /// From top to bottom.
    columns: Vec<Vec<usize>>,
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    /// The bends of each edge.
    chains: Vec<Vec<usize>>,
}

impl<'a> Plan<'a> {
    fn new(sizes: &'a [Size], edges: &[(usize, usize)], layers: &[usize]) -> Self {
        let mut layer = layers.to_vec();
        let mut chains = Vec::with_capacity(edges.len());
        let (mut left, mut right) = (vec![Vec::new(); sizes.len()], vec![Vec::new(); sizes.len()]);
        for (from, to) in edges {
            let between = layers[*from] + 1..layers[*to];
            let mut chain = Vec::new();
            if layer.len() - sizes.len() + between.len() <= BENDS_MAX {
                for at in between {
                    chain.push(layer.len());
                    layer.push(at);
                    left.push(Vec::new());
                    right.push(Vec::new());
                }
            }
            let mut last = *from;
            for node in chain.iter().chain([to]) {
                right[last].push(*node);
                left[*node].push(last);
                last = *node;
            }
            chains.push(chain);
        }
        let mut columns = vec![Vec::new(); layer.iter().max().map_or(0, |last| last + 1)];
        for (node, at) in layer.iter().enumerate() {
            columns[*at].push(node);
        }
        Self { sizes, layer, columns, left, right, chains }
    }

    fn height(&self, node: usize) -> f64 {
        self.sizes.get(node).map_or(BEND_HEIGHT, |size| size.height)
    }

    /// Sorts each column by the mean place of the neighbours in the column before, seen from that side.
    fn order(&mut self, rightwards: bool) {
        let mut place = vec![0.0; self.layer.len()];
        for column in &self.columns {
            column.iter().enumerate().for_each(|(i, node)| place[*node] = i as f64);
        }
        let count = self.columns.len();
        for i in 0..count {
            let (at, neighbours) = if rightwards { (i, &self.left) } else { (count - 1 - i, &self.right) };
            let mut column = std::mem::take(&mut self.columns[at]);
            let wish = |node: usize| mean(&neighbours[node], &place).unwrap_or(place[node]);
            let mut keyed: Vec<(f64, usize)> = column.iter().map(|node| (wish(*node), *node)).collect();
            // Stable: among equals the present order stays.
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            column.clear();
            for (i, (_, node)) in keyed.into_iter().enumerate() {
                place[node] = i as f64;
                column.push(node);
            }
            self.columns[at] = column;
        }
    }

    /// The middle of each node, from the top: near its neighbours, in the column's order, none over another.
    fn heights(&self) -> Vec<f64> {
        let mut y = vec![0.0; self.layer.len()];
        for column in &self.columns {
            self.spread(column, &mut y);
        }
        for round in 0..2 * ROUNDS {
            let count = self.columns.len();
            for i in 0..count {
                let (at, neighbours) =
                    if round % 2 == 0 { (i, &self.left) } else { (count - 1 - i, &self.right) };
                for node in &self.columns[at] {
                    if let Some(wish) = mean(&neighbours[*node], &y) {
                        y[*node] = wish;
                    }
                }
                self.spread(&self.columns[at], &mut y);
            }
        }
        let top = (0..y.len()).map(|node| y[node] - self.height(node) / 2.0).fold(f64::INFINITY, f64::min);
        y.iter().map(|y| y - top).collect()
    }

    /// Moves nodes apart that are too near. Once by pushing down, once by pushing up: both keep the distances, and
    /// so does their mean, which favours neither side.
    fn spread(&self, column: &[usize], y: &mut [f64]) {
        let apart = |a: usize, b: usize| (self.height(a) + self.height(b)) / 2.0 + GAP;
        let mut down: Vec<f64> = column.iter().map(|node| y[*node]).collect();
        let mut up = down.clone();
        for i in 1..column.len() {
            down[i] = down[i].max(down[i - 1] + apart(column[i - 1], column[i]));
        }
        for i in (1..column.len()).rev() {
            up[i - 1] = up[i - 1].min(up[i] - apart(column[i - 1], column[i]));
        }
        for (i, node) in column.iter().enumerate() {
            y[*node] = f64::midpoint(down[i], up[i]);
        }
    }
}

fn mean(nodes: &[usize], of: &[f64]) -> Option<f64> {
    let sum: f64 = nodes.iter().map(|node| of[*node]).sum();
    (!nodes.is_empty()).then(|| sum / nodes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Size = Size { width: 100.0, height: 30.0 };

    fn lefts(layout: &Layout) -> Vec<f64> {
        layout.boxes.iter().map(|(left, _)| *left).collect()
    }

    #[test]
    fn a_chain_is_a_straight_line_to_the_right() {
        let layout = layout(&[BOX; 3], &[(0, 1), (1, 2)], 50.0);
        assert_eq!(layout.boxes, [(0.0, 15.0), (150.0, 15.0), (300.0, 15.0)]);
        assert_eq!((layout.width, layout.height), (400.0, 30.0));
    }

    #[test]
    fn no_two_boxes_overlap_and_every_edge_but_a_rings_last_leads_to_the_right() {
        // A made-up graph of 60 nodes with rings, long edges and several edges between the same two.
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let edges: Vec<(usize, usize)> =
            (0..110).map(|_| (next(60) as usize, next(60) as usize)).filter(|(a, b)| a != b).collect();
        let layout = layout(&[BOX; 60], &edges, 50.0);
        for (i, a) in layout.boxes.iter().enumerate() {
            assert!(
                a.1 - 15.0 >= -0.01
                    && a.1 + 15.0 <= layout.height + 0.01
                    && a.0 + 100.0 <= layout.width + 0.01
            );
            for b in &layout.boxes[..i] {
                let is_apart = (a.0 - b.0).abs() >= 100.0 || (a.1 - b.1).abs() >= 30.0 + GAP - 0.01;
                assert!(is_apart, "{a:?} {b:?}");
            }
        }
        assert!(layout.is_back.contains(&true));
        let lefts = lefts(&layout);
        for ((from, to), back) in edges.iter().zip(&layout.is_back) {
            assert_eq!(lefts[*from] > lefts[*to], *back, "{from} to {to}");
        }
    }

    #[test]
    fn an_edge_that_passes_a_column_bends_around_its_box() {
        let layout = layout(&[BOX; 3], &[(0, 1), (1, 2), (0, 2)], 50.0);
        let [(left, y), (right, _)] = layout.bends[2][..] else { panic!("{:?}", layout.bends) };
        assert_eq!((left, right), (150.0, 250.0));
        assert!((y - layout.boxes[1].1).abs() > 15.0, "through the box in between");
    }
}
