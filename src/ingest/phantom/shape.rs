//! The solids of the anatomy, as approximate signed distance functions.
//!
//! Coordinates are millimetres of the standard body [left, posterior, superior]. Distances are negative inside. Their error near the
//! surface is a few percent, which is sufficient for soft edges; farther away only their sign is used.

/// A point or direction [left, posterior, superior] in mm.
pub(super) type Point = [f32; 3];

/// Distance beyond which a solid has no effect: more than half a voxel and the maximum variation of its surface.
const FAR_MM: f32 = 8.0;

/// Points along a row of voxels, with one array for each coordinate.
#[derive(Clone, Copy)]
pub(super) struct Points<'a> {
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    pub(super) z: &'a [f32],
    /// Distance from the inner wall of the trunk, negative inside.
    pub(super) wall: &'a [f32],
    /// The range of y and of z of the row.
    pub(super) band: [[f32; 2]; 2],
}

impl<'a> Points<'a> {
    /// Returns a part of the row.
    fn part(&self, range: std::ops::Range<usize>) -> Points<'a> {
        Points {
            x: &self.x[range.clone()],
            y: &self.y[range.clone()],
            z: &self.z[range.clone()],
            wall: &self.wall[range],
            band: self.band,
        }
    }

    /// Returns the lowest and the highest corner of a box around the points of a slightly warped row.
    fn bounds(&self) -> [Point; 2] {
        let [[y0, y1], [z0, z1]] = self.band;
        let [x0, x1] = [self.x.first(), self.x.last()].map(|x| x.copied().unwrap_or(0.0));
        [[x0.min(x1) - 2.0, y0, z0], [x0.max(x1) + 2.0, y1, z1]]
    }

    #[inline(always)]
    fn for_each(&self, out: &mut [f32], distance: impl Fn(Point) -> f32) {
        for (((d, &x), &y), &z) in out.iter_mut().zip(self.x).zip(self.y).zip(self.z) {
            *d = distance([x, y, z]);
        }
    }
}

/// A solid.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Points p with |rows · (p − center)| ≤ 1; `scale` is the shortest radius.
    Ellipsoid { center: Point, rows: [Point; 3], scale: f32, reach: Point },
    /// A tube from `a` to `b` with a radius from `ra` to `rb`.
    Tube { a: Point, b: Point, ra: f32, rb: f32 },
    /// An elliptic cylinder along z.
    Disc { center: Point, radii: [f32; 2], half_height: f32 },
    /// The cross-section of the trunk, reduced by an inset on each side.
    Trunk { profile: Profile, inset: Inset },
    /// The inside of the wall of the trunk, reduced by `inset_mm`.
    Cavity { inset_mm: f32 },
    /// Points p with normal · p ≤ offset.
    HalfSpace { normal: Point, offset: f32 },
    /// The union of solids, smoothed over `seam` mm; each solid has its bounding box.
    Union { parts: Vec<(Shape, [Point; 2])>, seam: f32 },
    /// The part of `body` that is inside of all solids of `inside` and outside of all solids of `outside`.
    Clipped { body: Box<Shape>, inside: Vec<Shape>, outside: Vec<Shape> },
    /// A solid whose surface is moved outwards by `offset_mm`.
    Offset { body: Box<Shape>, offset_mm: f32 },
}

/// Half axes of the trunk at several heights: [height, lateral, anteroposterior].
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) knots: [[f32; 3]; 7],
}

/// Depth of a layer of the trunk under its surface, in mm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inset {
    pub(super) side: f32,
    pub(super) front: f32,
    pub(super) back: f32,
}

impl Profile {
    /// Returns the half axes at a height.
    pub(super) fn at(&self, z: f32) -> [f32; 2] {
        let above = self.knots.iter().position(|knot| knot[0] > z).unwrap_or(self.knots.len() - 1).max(1);
        let [low, high] = [self.knots[above - 1], self.knots[above]];
        let t = ((z - low[0]) / (high[0] - low[0])).clamp(0.0, 1.0);
        let t = t * t * (3.0 - 2.0 * t);
        [low[1] + t * (high[1] - low[1]), low[2] + t * (high[2] - low[2])]
    }
}

impl Shape {
    /// Creates an ellipsoid with axes along the axes of the body.
    pub(super) fn ellipsoid(center: Point, radii: Point) -> Self {
        Self::rotated(center, radii, [0.0; 3])
    }

    /// Creates an ellipsoid that is rotated about x, then y, then z, in radians.
    pub(super) fn rotated(center: Point, radii: Point, angles: Point) -> Self {
        let mut rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        for (axis, angle) in angles.into_iter().enumerate() {
            let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
            let (i, j) = ((axis + 1) % 3, (axis + 2) % 3);
            for row in &mut rows {
                (row[i], row[j]) = (cos * row[i] - sin * row[j], sin * row[i] + cos * row[j]);
            }
        }
        let square = |axis: usize| (0..3).map(|k| (rows[k][axis] * radii[k]).powi(2)).sum::<f32>();
        let reach = [0, 1, 2].map(|axis| square(axis).sqrt());
        for (row, radius) in rows.iter_mut().zip(radii) {
            *row = row.map(|v| v / radius);
        }
        let scale = radii.into_iter().fold(f32::INFINITY, f32::min);
        Self::Ellipsoid { center, rows, scale, reach }
    }

    /// Creates a chain of tubes through several points with a radius at each point.
    pub(super) fn chain(points: &[(Point, f32)]) -> Self {
        let tube = |pair: &[(Point, f32)]| Self::Tube { a: pair[0].0, b: pair[1].0, ra: pair[0].1, rb: pair[1].1 };
        Self::union(points.windows(2).map(tube).collect(), 3.0)
    }

    /// Creates the union of several solids, smoothed over `seam` mm.
    pub(super) fn union(parts: Vec<Shape>, seam: f32) -> Self {
        let bounded = parts.into_iter().map(|part| {
            let bounds = part.bounds();
            (part, bounds)
        });
        Self::Union { parts: bounded.collect(), seam }
    }

    /// Returns the solid with its surface moved outwards by `offset_mm`, or inwards if `offset_mm` is negative.
    pub(super) fn offset(&self, offset_mm: f32) -> Self {
        Self::Offset { body: Box::new(self.clone()), offset_mm }
    }

    /// Returns the part of the solid that is inside of all solids of `inside` and outside of all solids of `outside`.
    pub(super) fn clipped(self, inside: Vec<Shape>, outside: Vec<Shape>) -> Self {
        Self::Clipped { body: Box::new(self), inside, outside }
    }

    /// Returns the bounding box of the solid: lowest and highest corner.
    pub(super) fn bounds(&self) -> [Point; 2] {
        let around = |center: Point, reach: Point| {
            [[0, 1, 2].map(|a| center[a] - reach[a]), [0, 1, 2].map(|a| center[a] + reach[a])]
        };
        match self {
            Self::Ellipsoid { center, reach, .. } => around(*center, *reach),
            Self::Tube { a, b, ra, rb } => {
                [[0, 1, 2].map(|i| (a[i] - ra).min(b[i] - rb)), [0, 1, 2].map(|i| (a[i] + ra).max(b[i] + rb))]
            }
            Self::Disc { center, radii, half_height } => around(*center, [radii[0], radii[1], *half_height]),
            Self::Trunk { .. } | Self::Cavity { .. } | Self::HalfSpace { .. } => {
                [[f32::NEG_INFINITY; 3], [f32::INFINITY; 3]]
            }
            Self::Union { parts, seam } => {
                let all = parts.iter().map(|(_, bounds)| *bounds).reduce(|first, second| {
                    [[0, 1, 2].map(|a| first[0][a].min(second[0][a])), [0, 1, 2].map(|a| first[1][a].max(second[1][a]))]
                });
                all.map_or([[0.0; 3]; 2], |[low, high]| [low.map(|v| v - seam), high.map(|v| v + seam)])
            }
            Self::Clipped { body, inside, .. } => {
                inside.iter().map(Self::bounds).fold(body.bounds(), |first, second| {
                    [[0, 1, 2].map(|a| first[0][a].max(second[0][a])), [0, 1, 2].map(|a| first[1][a].min(second[1][a]))]
                })
            }
            Self::Offset { body, offset_mm } => {
                let [low, high] = body.bounds();
                [low.map(|v| v - offset_mm), high.map(|v| v + offset_mm)]
            }
        }
    }

    /// Returns the mean radius of a tube; `None` for other shapes. A tube thinner than a voxel is weighted by this radius.
    pub(super) fn tube_radius(&self) -> Option<f32> {
        match self {
            Self::Tube { ra, rb, .. } => Some(0.5 * (ra + rb)),
            _ => None,
        }
    }

    /// Returns whether the distance between points and a bounding box is larger than `gap`.
    pub(super) fn misses(bounds: &[Point; 2], points: Points<'_>, gap: f32) -> bool {
        apart(&points.bounds(), bounds, gap)
    }

    /// Writes the distances of points along a row to `out`.
    pub(super) fn distances(&self, points: Points<'_>, out: &mut [f32]) {
        match self {
            Self::Ellipsoid { center, rows, scale, .. } => points.for_each(out, |p| {
                let q = [p[0] - center[0], p[1] - center[1], p[2] - center[2]];
                let n = rows.map(|row| row[0] * q[0] + row[1] * q[1] + row[2] * q[2]);
                let level = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]).sqrt();
                // |q| over the level is the radius in the direction of the point; near the centre it is the shortest radius.
                let radius = (q[0] * q[0] + q[1] * q[1] + q[2] * q[2]).sqrt() / level.max(1e-3);
                (level - 1.0) * radius.max(*scale)
            }),
            Self::Tube { a, b, ra, rb } => {
                let along = [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
                let square = (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).max(1e-6);
                points.for_each(out, |p| {
                    let q = [p[0] - a[0], p[1] - a[1], p[2] - a[2]];
                    let t = ((q[0] * along[0] + q[1] * along[1] + q[2] * along[2]) / square).clamp(0.0, 1.0);
                    let r = [q[0] - t * along[0], q[1] - t * along[1], q[2] - t * along[2]];
                    (r[0] * r[0] + r[1] * r[1] + r[2] * r[2]).sqrt() - (ra + t * (rb - ra))
                });
            }
            Self::Disc { center, radii, half_height } => {
                let short = radii[0].min(radii[1]);
                points.for_each(out, |p| {
                    let (x, y) = ((p[0] - center[0]) / radii[0], (p[1] - center[1]) / radii[1]);
                    let side = ((x * x + y * y).sqrt() - 1.0) * short;
                    side.max((p[2] - center[2]).abs() - half_height)
                });
            }
            Self::Trunk { profile, inset } => {
                let middle = points.z.get(points.z.len() / 2).copied().unwrap_or(0.0);
                let [a, b] = profile.at(middle);
                let lateral = a - inset.side;
                let depth = b - 0.5 * (inset.front + inset.back);
                let shift = 0.5 * (inset.front - inset.back);
                points.for_each(out, |[x, y, _]| {
                    let y = y - shift;
                    let (u, v) = ((x / lateral) * (x / lateral), (y / depth) * (y / depth));
                    let radius = (x * x + y * y).sqrt();
                    // Squarer than an ellipse, as bodies are; the product is limited, because it would reduce the level far outside.
                    let level = (u + v - 0.4 * u.min(1.0) * v.min(1.0)).max(1e-4).sqrt();
                    radius - radius / level
                });
            }
            Self::Cavity { inset_mm } => out.iter_mut().zip(points.wall).for_each(|(d, wall)| *d = wall + inset_mm),
            Self::HalfSpace { normal, offset } => {
                points.for_each(out, |p| normal[0] * p[0] + normal[1] * p[1] + normal[2] * p[2] - offset);
            }
            Self::Union { parts, seam } => {
                out.fill(1e6);
                let around = points.bounds();
                let mut distances = vec![0.0; out.len()];
                for (part, bounds) in parts {
                    if apart(&around, bounds, FAR_MM + seam) {
                        continue;
                    }
                    part.distances(points, &mut distances);
                    for (d, &distance) in out.iter_mut().zip(&distances) {
                        let blend = (1.0 - (*d - distance).abs() / seam).max(0.0);
                        *d = d.min(distance) - 0.25 * blend * blend * seam;
                    }
                }
            }
            Self::Clipped { body, inside, outside } => {
                body.distances(points, out);
                let mut limits = vec![0.0; out.len()];
                let sides = inside.iter().map(|shape| (shape, 1.0)).chain(outside.iter().map(|shape| (shape, -1.0)));
                for (shape, sign) in sides {
                    // Only the remaining part of the body needs to be clipped.
                    let near = |d: &f32| *d <= FAR_MM;
                    let (Some(first), Some(last)) = (out.iter().position(near), out.iter().rposition(near)) else {
                        return;
                    };
                    let limits = &mut limits[first..=last];
                    shape.distances(points.part(first..last + 1), limits);
                    for (d, &limit) in out[first..=last].iter_mut().zip(&*limits) {
                        *d = d.max(sign * limit);
                    }
                }
            }
            Self::Offset { body, offset_mm } => {
                body.distances(points, out);
                out.iter_mut().for_each(|d| *d -= offset_mm);
            }
        }
    }
}

/// Returns whether the distance of two boxes along some axis is larger than `gap`.
fn apart([low, high]: &[Point; 2], [from, to]: &[Point; 2], gap: f32) -> bool {
    (0..3).any(|a| low[a] > to[a] + gap || from[a] > high[a] + gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(shape: &Shape, [x, y, z]: Point) -> f32 {
        let mut out = [0.0];
        shape.distances(Points { x: &[x], y: &[y], z: &[z], wall: &[0.0], band: [[y, y], [z, z]] }, &mut out);
        out[0]
    }

    #[test]
    fn distance_is_zero_on_surface_and_in_millimetres() {
        let rotated = Shape::rotated([1.0, 2.0, 3.0], [10.0, 20.0, 5.0], [0.0, 0.0, std::f32::consts::FRAC_PI_2]);
        // A rotation by 90° about z puts the first radius along y and the second along x.
        assert!(distance(&rotated, [21.0, 2.0, 3.0]).abs() < 1e-4);
        assert!(distance(&rotated, [1.0, 12.0, 3.0]).abs() < 1e-4);
        assert!((distance(&rotated, [1.0, 13.0, 3.0]) - 1.0).abs() < 0.05);
        assert!(distance(&rotated, [1.0, 2.0, 3.0]) < -4.9);
        let tube = Shape::Tube { a: [0.0; 3], b: [10.0, 0.0, 0.0], ra: 2.0, rb: 4.0 };
        assert!((distance(&tube, [5.0, 4.0, 0.0]) - 1.0).abs() < 1e-5);
        assert!((distance(&tube, [-3.0, 0.0, 0.0]) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn solid_is_within_its_bounds() {
        let parts = vec![
            Shape::ellipsoid([0.0; 3], [9.0, 4.0, 6.0]),
            Shape::rotated([8.0, 3.0, 1.0], [3.0, 9.0, 4.0], [0.4, 0.2, 1.0]),
        ];
        let union = Shape::union(parts, 5.0);
        let shape = union.offset(1.5).clipped(vec![], vec![Shape::HalfSpace { normal: [0.0, 0.0, 1.0], offset: 0.0 }]);
        let [low, high] = shape.bounds();
        let mut inside = 0;
        for step in 0..64_000 {
            let p = [step % 40, step / 40 % 40, step / 1600].map(|i| i as f32 - 20.0);
            if distance(&shape, p) < 0.0 {
                inside += 1;
                assert!((0..3).all(|a| low[a] <= p[a] && p[a] <= high[a]), "{p:?}");
                assert!(p[2] >= 0.0);
            }
        }
        assert!(inside > 300, "{inside}");
    }
}
