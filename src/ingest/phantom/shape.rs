//! The solids that anatomy is made of, as approximate signed distances.
//!
//! Coordinates are standard millimetres [left, posterior, superior]. Distances are negative inside; near the surface
//! they are right to a few percent, which is what soft edges need, farther away only their sign counts.

/// A point or direction [left, posterior, superior] in mm.
pub(super) type Point = [f32; 3];

/// Beyond this distance nothing of a solid shows: more than half a voxel and any wandering of its surface.
const FAR_MM: f32 = 8.0;

/// Points along a row of voxels, each coordinate in an array of its own.
#[derive(Clone, Copy)]
pub(super) struct Points<'a> {
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    pub(super) z: &'a [f32],
    /// Distance from the trunk's inner wall, negative inside.
    pub(super) wall: &'a [f32],
    /// The stretch of y and of z in which the row lies.
    pub(super) band: [[f32; 2]; 2],
}

impl<'a> Points<'a> {
    /// A part of the row.
    fn part(&self, range: std::ops::Range<usize>) -> Points<'a> {
        Points {
            x: &self.x[range.clone()],
            y: &self.y[range.clone()],
            z: &self.z[range.clone()],
            wall: &self.wall[range],
            band: self.band,
        }
    }

    /// Lowest and highest corner of a box around the points, a row that is bent but little.
    fn bounds(&self) -> [Point; 2] {
        let [[y0, y1], [z0, z1]] = self.band;
        let [x0, x1] = [self.x.first(), self.x.last()].map(|x| x.copied().unwrap_or(0.0));
        [[x0.min(x1) - 2.0, y0, z0], [x0.max(x1) + 2.0, y1, z1]]
    }

    #[inline(always)]
    fn each(&self, out: &mut [f32], distance: impl Fn(Point) -> f32) {
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
    /// A round bar from `a` to `b`, its radius going from `ra` to `rb`.
    Tube { a: Point, b: Point, ra: f32, rb: f32 },
    /// An elliptic cylinder along z, its rims rounded.
    Disc { center: Point, radii: [f32; 2], half_height: f32 },
    /// The trunk's cross-section, drawn in by some millimetres on each side.
    Trunk { profile: Profile, inset: Inset },
    /// The inside of the trunk's wall, drawn in by some more millimetres.
    Cavity { deeper: f32 },
    /// Points p with normal · p ≤ offset.
    Half { normal: Point, offset: f32 },
    /// Several solids grown into one, their seams smoothed over `seam` mm, each with a box around it.
    Grown { parts: Vec<(Shape, [Point; 2])>, seam: f32 },
    /// What of `body` lies within all of `within` and outside all of `without`.
    Carved { body: Box<Shape>, within: Vec<Shape>, without: Vec<Shape> },
    /// A solid with its surface moved outwards by `by` mm.
    Swollen { body: Box<Shape>, by: f32 },
}

/// Half axes of the trunk [across, front to back] at some heights.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) knots: [[f32; 3]; 7],
}

/// Millimetres by which a layer of the trunk lies inside its surface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inset {
    pub(super) side: f32,
    pub(super) front: f32,
    pub(super) back: f32,
}

impl Profile {
    /// Half axes at a height.
    pub(super) fn at(&self, z: f32) -> [f32; 2] {
        let above = self.knots.iter().position(|knot| knot[0] > z).unwrap_or(self.knots.len() - 1).max(1);
        let [low, high] = [self.knots[above - 1], self.knots[above]];
        let t = ((z - low[0]) / (high[0] - low[0])).clamp(0.0, 1.0);
        let t = t * t * (3.0 - 2.0 * t);
        [low[1] + t * (high[1] - low[1]), low[2] + t * (high[2] - low[2])]
    }
}

impl Shape {
    /// An ellipsoid with axes along the body's.
    pub(super) fn ellipsoid(center: Point, radii: Point) -> Self {
        Self::turned(center, radii, [0.0; 3])
    }

    /// An ellipsoid turned about x, then y, then z, in radians.
    pub(super) fn turned(center: Point, radii: Point, angles: Point) -> Self {
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

    /// A bar through several points with a radius at each.
    pub(super) fn chain(points: &[(Point, f32)]) -> Self {
        let bar = |pair: &[(Point, f32)]| Self::Tube { a: pair[0].0, b: pair[1].0, ra: pair[0].1, rb: pair[1].1 };
        Self::grown(points.windows(2).map(bar).collect(), 3.0)
    }

    /// Several solids grown into one, their seams smoothed over `seam` mm.
    pub(super) fn grown(parts: Vec<Shape>, seam: f32) -> Self {
        let bounded = parts.into_iter().map(|part| {
            let bounds = part.bounds();
            (part, bounds)
        });
        Self::Grown { parts: bounded.collect(), seam }
    }

    /// The same solid, swollen (or shrunk, where `by` is negative).
    pub(super) fn swollen(&self, by: f32) -> Self {
        Self::Swollen { body: Box::new(self.clone()), by }
    }

    /// The same solid, limited.
    pub(super) fn carved(self, within: Vec<Shape>, without: Vec<Shape>) -> Self {
        Self::Carved { body: Box::new(self), within, without }
    }

    /// A box around the solid: lowest and highest corner.
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
            Self::Trunk { .. } | Self::Cavity { .. } | Self::Half { .. } => {
                [[f32::NEG_INFINITY; 3], [f32::INFINITY; 3]]
            }
            Self::Grown { parts, seam } => {
                let all = parts.iter().map(|(_, bounds)| *bounds).reduce(|one, other| {
                    [[0, 1, 2].map(|a| one[0][a].min(other[0][a])), [0, 1, 2].map(|a| one[1][a].max(other[1][a]))]
                });
                all.map_or([[0.0; 3]; 2], |[low, high]| [low.map(|v| v - seam), high.map(|v| v + seam)])
            }
            Self::Carved { body, within, .. } => within.iter().map(Self::bounds).fold(body.bounds(), |one, other| {
                [[0, 1, 2].map(|a| one[0][a].max(other[0][a])), [0, 1, 2].map(|a| one[1][a].min(other[1][a]))]
            }),
            Self::Swollen { body, by } => {
                let [low, high] = body.bounds();
                [low.map(|v| v - by), high.map(|v| v + by)]
            }
        }
    }

    /// The radius of a tube that may be thinner than a voxel.
    pub(super) fn thin_radius(&self) -> Option<f32> {
        match self {
            Self::Tube { ra, rb, .. } => Some(0.5 * (ra + rb)),
            _ => None,
        }
    }

    /// Whether points lie farther from the solid's box than `gap`.
    pub(super) fn misses(bounds: &[Point; 2], points: Points<'_>, gap: f32) -> bool {
        apart(&points.bounds(), bounds, gap)
    }

    /// Writes the distances of points along a row to `out`.
    pub(super) fn distances(&self, points: Points<'_>, out: &mut [f32]) {
        match self {
            Self::Ellipsoid { center, rows, scale, .. } => points.each(out, |p| {
                let q = [p[0] - center[0], p[1] - center[1], p[2] - center[2]];
                let n = rows.map(|row| row[0] * q[0] + row[1] * q[1] + row[2] * q[2]);
                let level = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]).sqrt();
                // |q| over the level is the radius in the point's own direction; near the centre the shortest one.
                let own = (q[0] * q[0] + q[1] * q[1] + q[2] * q[2]).sqrt() / level.max(1e-3);
                (level - 1.0) * own.max(*scale)
            }),
            Self::Tube { a, b, ra, rb } => {
                let along = [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
                let square = (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).max(1e-6);
                points.each(out, |p| {
                    let q = [p[0] - a[0], p[1] - a[1], p[2] - a[2]];
                    let t = ((q[0] * along[0] + q[1] * along[1] + q[2] * along[2]) / square).clamp(0.0, 1.0);
                    let r = [q[0] - t * along[0], q[1] - t * along[1], q[2] - t * along[2]];
                    (r[0] * r[0] + r[1] * r[1] + r[2] * r[2]).sqrt() - (ra + t * (rb - ra))
                });
            }
            Self::Disc { center, radii, half_height } => {
                let short = radii[0].min(radii[1]);
                points.each(out, |p| {
                    let (x, y) = ((p[0] - center[0]) / radii[0], (p[1] - center[1]) / radii[1]);
                    let side = ((x * x + y * y).sqrt() - 1.0) * short;
                    side.max((p[2] - center[2]).abs() - half_height)
                });
            }
            Self::Trunk { profile, inset } => {
                let middle = points.z.get(points.z.len() / 2).copied().unwrap_or(0.0);
                let [a, b] = profile.at(middle);
                let across = a - inset.side;
                let deep = b - 0.5 * (inset.front + inset.back);
                let shift = 0.5 * (inset.front - inset.back);
                points.each(out, |[x, y, _]| {
                    let y = y - shift;
                    let (u, v) = ((x / across) * (x / across), (y / deep) * (y / deep));
                    let radius = (x * x + y * y).sqrt();
                    // Squarer than an ellipse, as bodies are; far outside the product would bend it back.
                    let level = (u + v - 0.4 * u.min(1.0) * v.min(1.0)).max(1e-4).sqrt();
                    radius - radius / level
                });
            }
            Self::Cavity { deeper } => out.iter_mut().zip(points.wall).for_each(|(d, wall)| *d = wall + deeper),
            Self::Half { normal, offset } => {
                points.each(out, |p| normal[0] * p[0] + normal[1] * p[1] + normal[2] * p[2] - offset);
            }
            Self::Grown { parts, seam } => {
                out.fill(1e6);
                let around = points.bounds();
                let mut own = vec![0.0; out.len()];
                for (part, bounds) in parts {
                    if apart(&around, bounds, FAR_MM + seam) {
                        continue;
                    }
                    part.distances(points, &mut own);
                    for (d, &own) in out.iter_mut().zip(&own) {
                        let blend = (1.0 - (*d - own).abs() / seam).max(0.0);
                        *d = d.min(own) - 0.25 * blend * blend * seam;
                    }
                }
            }
            Self::Carved { body, within, without } => {
                body.distances(points, out);
                let mut limits = vec![0.0; out.len()];
                let sides = within.iter().map(|shape| (shape, 1.0)).chain(without.iter().map(|shape| (shape, -1.0)));
                for (shape, sign) in sides {
                    // Only what is left of the body needs to be limited.
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
            Self::Swollen { body, by } => {
                body.distances(points, out);
                out.iter_mut().for_each(|d| *d -= by);
            }
        }
    }
}

/// Whether two boxes lie farther apart than `gap` along some axis.
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
    fn distances_vanish_on_surfaces_and_grow_by_the_millimetre() {
        let turned = Shape::turned([1.0, 2.0, 3.0], [10.0, 20.0, 5.0], [0.0, 0.0, std::f32::consts::FRAC_PI_2]);
        // A quarter turn about z lays the first radius along y and the second along x.
        assert!(distance(&turned, [21.0, 2.0, 3.0]).abs() < 1e-4);
        assert!(distance(&turned, [1.0, 12.0, 3.0]).abs() < 1e-4);
        assert!((distance(&turned, [1.0, 13.0, 3.0]) - 1.0).abs() < 0.05);
        assert!(distance(&turned, [1.0, 2.0, 3.0]) < -4.9);
        let tube = Shape::Tube { a: [0.0; 3], b: [10.0, 0.0, 0.0], ra: 2.0, rb: 4.0 };
        assert!((distance(&tube, [5.0, 4.0, 0.0]) - 1.0).abs() < 1e-5);
        assert!((distance(&tube, [-3.0, 0.0, 0.0]) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn solids_lie_within_their_bounds() {
        let parts = vec![
            Shape::ellipsoid([0.0; 3], [9.0, 4.0, 6.0]),
            Shape::turned([8.0, 3.0, 1.0], [3.0, 9.0, 4.0], [0.4, 0.2, 1.0]),
        ];
        let grown = Shape::grown(parts, 5.0);
        let shape = grown.swollen(1.5).carved(vec![], vec![Shape::Half { normal: [0.0, 0.0, 1.0], offset: 0.0 }]);
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
