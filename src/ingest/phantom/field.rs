//! Smooth random fields over the body: cubic B-splines over a lattice of random numbers.
//!
//! A field is defined in the coordinates of the patient, not of the grid: it does not change with the grid.

use crate::random::RandomStream;

/// The box that fields cover, in millimetres of the standard body [left, posterior, superior].
const LOW_MM: [f32; 3] = [-260.0, -200.0, -340.0];
const HIGH_MM: [f32; 3] = [260.0, 200.0, 340.0];

/// A scalar field; its values are within the range of its control values.
pub(super) struct Field {
    cell_mm: f32,
    shape: [usize; 3],
    control: Vec<f32>,
}

impl Field {
    /// Creates a field with control values uniform in −1..1, at a distance of `cell_mm`.
    pub(super) fn random(random: &mut RandomStream, cell_mm: f32) -> Self {
        let shape = [0, 1, 2].map(|a| ((HIGH_MM[a] - LOW_MM[a]) / cell_mm).ceil() as usize + 4);
        let control = (0..shape.iter().product()).map(|_| 2.0 * random.unit_f32() - 1.0).collect();
        Self { cell_mm, shape, control }
    }

    /// Returns the index of the first control value and the weights of the four control values at a coordinate.
    fn tap(&self, axis: usize, mm: f32) -> (usize, [f32; 4]) {
        let last = (self.shape[axis] - 4) as f32;
        let at = ((mm - LOW_MM[axis]) / self.cell_mm).clamp(0.0, last);
        let first = at.floor();
        let t = at - first;
        let s = 1.0 - t;
        let sixth = 1.0 / 6.0;
        let inner = |u: f32| (4.0 - 6.0 * u * u + 3.0 * u * u * u) * sixth;
        (first as usize, [s * s * s * sixth, inner(t), inner(s), t * t * t * sixth])
    }

    /// Prepares evaluation along rows with the x coordinates `xs_mm`.
    pub(super) fn along(&self, xs_mm: &[f32]) -> Rows<'_> {
        Rows {
            field: self,
            taps: xs_mm.iter().map(|&x| self.tap(0, x)).collect(),
            plane: vec![0.0; self.shape[0] * self.shape[1]],
            line: vec![0.0; self.shape[0]],
        }
    }
}

/// Evaluation of a field plane by plane and row by row.
pub(super) struct Rows<'f> {
    field: &'f Field,
    taps: Vec<(usize, [f32; 4])>,
    plane: Vec<f32>,
    line: Vec<f32>,
}

impl Rows<'_> {
    /// Moves to the plane at z.
    pub(super) fn plane(&mut self, z_mm: f32) {
        let (first, weights) = self.field.tap(2, z_mm);
        let stride = self.plane.len();
        let planes = [0, 1, 2, 3].map(|k| &self.field.control[(first + k) * stride..(first + k + 1) * stride]);
        for (i, value) in self.plane.iter_mut().enumerate() {
            *value = (0..4).map(|k| weights[k] * planes[k][i]).sum();
        }
    }

    /// Writes `amplitude` times the field at y in the current plane to `out`.
    pub(super) fn row(&mut self, y_mm: f32, amplitude: f32, out: &mut [f32]) {
        let (first, weights) = self.field.tap(1, y_mm);
        let stride = self.line.len();
        for (i, value) in self.line.iter_mut().enumerate() {
            *value = amplitude * (0..4).map(|k| weights[k] * self.plane[(first + k) * stride + i]).sum::<f32>();
        }
        for (value, (first, weights)) in out.iter_mut().zip(&self.taps) {
            let near = &self.line[*first..*first + 4];
            *value = weights[0] * near[0] + weights[1] * near[1] + weights[2] * near[2] + weights[3] * near[3];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn constant_lattice_is_constant_field() {
        let mut field = Field::random(&mut Key::root(1).stream("field"), 30.0);
        field.control.fill(0.75);
        let mut rows = field.along(&[-400.0, -10.3, 0.0, 55.5, 400.0]);
        rows.plane(12.0);
        let mut out = [0.0; 5];
        rows.row(-77.0, 2.0, &mut out);
        assert!(out.iter().all(|v| (v - 1.5).abs() < 1e-5), "{out:?}");
    }

    #[test]
    fn field_is_smooth_and_bounded() {
        let field = Field::random(&mut Key::root(2).stream("field"), 20.0);
        let xs: Vec<f32> = (0..500).map(|i| i as f32 - 250.0).collect();
        let mut rows = field.along(&xs);
        rows.plane(3.0);
        let mut out = vec![0.0; xs.len()];
        rows.row(8.0, 1.0, &mut out);
        assert!(out.iter().all(|v| v.abs() <= 1.0));
        assert!(out.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.15));
        assert!(out.iter().fold(0.0f32, |most, v| most.max(v.abs())) > 0.2);
    }
}
