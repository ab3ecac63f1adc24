//! The wall of the trunk and the skeleton.

use super::anatomy::Anatomy;
use super::patient::Build;
use super::scene::{relabel, tissue};
use super::shape::{Inset, Point, Profile, Shape};

/// TotalSegmentator ids of vertebrae with the heights of their bodies, from L5 to C7.
const VERTEBRAE: [(u8, f32); 18] = [
    (27, -238.0),
    (28, -206.0),
    (29, -174.0),
    (30, -143.0),
    (31, -113.0),
    (32, -85.0),
    (33, -58.0),
    (34, -32.0),
    (35, -7.0),
    (36, 17.0),
    (37, 40.0),
    (38, 63.0),
    (39, 85.0),
    (40, 107.0),
    (41, 128.0),
    (42, 149.0),
    (43, 169.0),
    (44, 188.0),
];

/// Half axes of the standard trunk: [height, lateral, anteroposterior].
const STANDARD: [[f32; 3]; 7] = [
    [-320.0, 176.0, 108.0],
    [-230.0, 168.0, 105.0],
    [-140.0, 158.0, 106.0],
    [-40.0, 158.0, 112.0],
    [70.0, 164.0, 114.0],
    [150.0, 170.0, 102.0],
    [230.0, 150.0, 78.0],
];

/// Returns the cross-sections of the trunk, scaled by `girth`.
pub(super) fn profile(girth: f32) -> Profile {
    Profile { knots: STANDARD.map(|[z, lateral, depth]| [z, lateral * girth, depth * girth]) }
}

/// Returns the inside of the wall of the trunk.
pub(super) fn inner_wall(build: &Build) -> Shape {
    let side = 0.8 * build.fat_mm + build.muscle_mm;
    let front = build.fat_mm + build.muscle_mm;
    let back = 0.9 * build.fat_mm + 14.0;
    Shape::Trunk { profile: profile(build.girth), inset: Inset { side, front, back } }
}

/// Returns the y coordinate of the centre of the vertebral bodies: anterior in the lumbar spine, posterior in the chest.
fn spine_y(z: f32) -> f32 {
    let bend = |middle: f32, width: f32| libm::expf(-((z - middle) / width).powi(2));
    60.0 - 9.0 * bend(-185.0, 55.0) + 7.0 * bend(60.0, 90.0) - 14.0 * bend(230.0, 60.0)
}

impl Anatomy<'_> {
    /// Adds couch, skin, fat, muscles and the cavity that they enclose, filled with fat.
    pub(super) fn wall(&mut self) {
        let couch = |radii: [f32; 2]| Shape::Disc { center: [0.0, -145.0, 0.0], radii, half_height: 2000.0 };
        let below = || Shape::HalfSpace { normal: [0.0, -1.0, 0.0], offset: -70.0 };
        let bottom = 118.0 * self.build.girth.max(1.0) + 145.0;
        let table = |outer: f32, inner: f32| {
            couch([1.5 * (bottom + outer), bottom + outer])
                .clipped(vec![below()], vec![couch([1.5 * (bottom + inner), bottom + inner])])
        };
        self.scene.add(table(40.0, 10.0), tissue(-930.0).rigid());
        self.scene.add(table(13.0, 10.0), tissue(-180.0).rigid());

        let fat = self.build.fat_mm;
        let trunk = |inset: Inset| Shape::Trunk { profile: self.profile.clone(), inset };
        let muscles = Inset { side: 0.8 * fat, front: fat, back: 0.9 * fat };
        let skin = [(0.0, tissue(-10.0)), (2.5, tissue(-104.0).variation(8.0))];
        self.scene.add_layers(trunk(Inset::default()), &skin);
        self.scene.add(trunk(muscles), tissue(52.0).variation(14.0).roughness(2.0));
        self.scene.add(Shape::Cavity { inset_mm: 0.0 }, tissue(-98.0).variation(14.0));

        for (side, back, psoas_label) in [(1.0, 86, 88), (-1.0, 87, 89)] {
            let spinal = Shape::Disc { center: [side * 34.0, 84.0, -80.0], radii: [27.0, 15.0], half_height: 240.0 };
            self.scene.add(spinal, tissue(54.0).variation(20.0).roughness(2.5).label(back));
            let psoas = [
                ([side * 24.0, 54.0, -105.0], 6.0),
                ([side * 36.0, 50.0, -175.0], 16.0),
                ([side * 52.0, 38.0, -260.0], 21.0),
            ];
            self.scene.add(Shape::chain(&psoas), tissue(56.0).variation(8.0).roughness(1.5).label(psoas_label));
            let quadratus = Shape::ellipsoid([side * 66.0, 70.0, -165.0], [20.0, 10.0, 55.0]);
            self.scene.add(quadratus, tissue(54.0).variation(8.0));
        }
    }

    /// Adds spine, ribs, sternum, pelvis and shoulder girdle.
    pub(super) fn skeleton(&mut self) {
        self.spine();
        for (index, (_, height)) in VERTEBRAE[5..17].iter().enumerate() {
            self.rib_pair(12 - index as u8, *height);
        }
        let bone = self.build.bone;
        let front = |z: f32| -self.profile.at(z)[1] + self.build.fat_mm + 9.0;
        let sternum: Vec<(Point, f32)> =
            [(135.0, 9.0), (105.0, 8.0), (60.0, 8.0), (20.0, 6.0)].map(|(z, r)| ([0.0, front(z), z], r)).to_vec();
        self.scene.add(Shape::chain(&sternum), tissue(190.0 * bone).variation(30.0).label(116));
        for side in [1.0, -1.0] {
            let (hip, clavicle, scapula) = if side > 0.0 { (77, 73, 71) } else { (78, 74, 72) };
            let outer = Shape::rotated([side * 95.0, 45.0, -262.0], [62.0, 62.0, 72.0], [0.0, 0.0, side * 0.35]);
            let inner = Shape::rotated([side * 84.0, 34.0, -256.0], [60.0, 62.0, 78.0], [0.0, 0.0, side * 0.35]);
            let wing = outer.clipped(vec![Shape::Cavity { inset_mm: -8.0 }], vec![inner]);
            self.scene.add(wing, tissue(420.0 * bone).variation(90.0).label(hip));
            let collar = [
                ([side * 14.0, front(140.0) + 6.0, 148.0], 6.0),
                ([side * 70.0, -45.0, 178.0], 5.5),
                ([side * 135.0, 0.0, 186.0], 6.0),
            ];
            self.scene.add(Shape::chain(&collar), tissue(460.0 * bone).label(clavicle));
            let blade = Shape::rotated([side * 98.0, 62.0, 120.0], [40.0, 4.0, 55.0], [0.1, 0.0, side * -0.75]);
            self.scene.add(blade, tissue(430.0 * bone).variation(100.0).roughness(1.0).label(scapula));
        }
    }

    fn spine(&mut self) {
        let bone = self.build.bone;
        let column: Vec<(Point, f32)> =
            (0..16).map(|i| -270.0 + 32.0 * i as f32).map(|z| ([0.0, spine_y(z), z], 17.5)).collect();
        self.scene.add(Shape::chain(&column), tissue(85.0).variation(10.0));
        for (index, &(label, z)) in VERTEBRAE.iter().enumerate() {
            let y = spine_y(z);
            let pitch = if index + 1 < VERTEBRAE.len() { VERTEBRAE[index + 1].1 - z } else { 19.0 };
            let (width, depth) = (16.0 + 0.27 * pitch, 11.0 + 0.2 * pitch);
            let body = Shape::Disc { center: [0.0, y, z], radii: [width, depth], half_height: 0.41 * pitch };
            let layers = [tissue(430.0 * bone), tissue(185.0 * bone).variation(35.0)].map(|paint| paint.label(label));
            self.scene.add_layers(body, &[(0.0, layers[0]), (2.0, layers[1])]);
            let tip = (y + depth + 30.0).min(self.profile.at(z)[1] - 0.9 * self.build.fat_mm - 4.0);
            let arch = tissue(390.0 * bone).variation(60.0).label(label);
            let spinous = [([0.0, y + depth + 17.0, z - 2.0], 4.0), ([0.0, tip, z - 0.45 * pitch], 3.5)];
            self.scene.add(Shape::chain(&spinous), arch);
            for side in [1.0, -1.0] {
                let lamina = [
                    ([0.0, y + depth + 18.0, z - 2.0], 3.0),
                    ([side * 13.0, y + depth + 8.0, z + 2.0], 4.5),
                    ([side * 12.0, y + depth - 3.0, z + 3.0], 4.0),
                ];
                self.scene.add(Shape::chain(&lamina), arch);
                let transverse =
                    [([side * 13.0, y + depth + 8.0, z + 2.0], 4.0), ([side * 34.0, y + depth + 13.0, z + 4.0], 3.0)];
                self.scene.add(Shape::chain(&transverse), arch);
            }
        }
        let sacrum = Shape::rotated([0.0, 72.0, -285.0], [48.0, 18.0, 42.0], [0.5, 0.0, 0.0]);
        self.scene.add(sacrum, tissue(260.0 * bone).variation(70.0).roughness(2.0).label(25));
        let canal: Vec<(Point, f32)> =
            (0..16).map(|i| -250.0 + 30.0 * i as f32).map(|z| ([0.0, spine_y(z) + 25.0, z], 8.5)).collect();
        self.scene.add_layers(Shape::chain(&canal), &[(0.0, tissue(15.0)), (3.5, tissue(42.0).label(79))]);
    }

    /// Adds the ribs of one vertebra and their cartilage.
    fn rib_pair(&mut self, number: u8, height: f32) {
        let bone = self.build.bone;
        let reach = match number {
            11 => 0.48,
            12 => 0.36,
            8..=10 => 0.7,
            _ => 0.76,
        };
        let drop = if number == 1 { 30.0 } else { 62.0 };
        for (side, first) in [(1.0, 91), (-1.0, 103)] {
            let depth = self.build.fat_mm + 7.0;
            let point = |share: f32| -> Point {
                let angle = std::f32::consts::PI * (0.09 + share * 0.91);
                let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
                let z = height + 8.0 - 0.5 * drop * (1.0 - cos);
                let [a, b] = self.profile.at(z);
                // The trunk is squarer than an ellipse: the radius is larger where both coordinates are large.
                let product = (sin * cos).powi(2).max(1e-3);
                let square = (1.0 - (1.0 - 1.6 * product).sqrt()) / (0.8 * product);
                let out = square.sqrt();
                let first_rib = if number == 1 { 0.72 } else { 1.0 };
                [side * first_rib * (a - depth) * out * sin, (b - depth - 4.0) * out * cos, z]
            };
            let tube = |from: f32, to: f32, radius: f32| {
                let points: Vec<(Point, f32)> =
                    (0..=9).map(|i| (point(from + (to - from) * i as f32 / 9.0), radius)).collect();
                Shape::chain(&points)
            };
            let label = first + number;
            let layers = [(0.0, tissue(470.0 * bone).label(label)), (2.6, tissue(210.0 * bone))];
            self.scene.add_layers(tube(0.0, reach, 5.2), &layers);
            if number <= 10 {
                let cartilage = tube(reach, if number <= 7 { 0.97 } else { 0.85 }, 4.6);
                self.scene.add(cartilage, tissue(105.0).variation(25.0).label(117));
            }
        }
    }

    /// Changes the label from `from` to `to` on the side of the plane where normal · p ≤ `offset`, p in mm [left, posterior, superior].
    pub(super) fn split_lobe(&mut self, normal: Point, offset: f32, from: u8, to: u8) {
        self.scene.add(Shape::HalfSpace { normal, offset }, relabel(to).within_labels(from, from));
    }
}
