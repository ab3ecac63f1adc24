//! The chest: lungs, airways, heart, great vessels.

use super::anatomy::Anatomy;
use super::scene::tissue;
use super::shape::{Point, Shape};
use super::vessels::{BranchingRule, grow_tree};

/// TotalSegmentator ids of the lung lobes.
const LOBES: [u8; 2] = [10, 14];

impl Anatomy<'_> {
    /// Adds both lungs with lobes and vessels.
    pub(super) fn lungs(&mut self) {
        let mediastinum = Shape::union(
            vec![
                Shape::ellipsoid([3.0, 0.0, 75.0], [30.0, 62.0, 150.0]),
                Shape::ellipsoid([0.0, 72.0, 40.0], [30.0, 30.0, 300.0]),
            ],
            10.0,
        );
        let density = self.random.uniform(-868.0, -835.0) as f32;
        for side in [1.0, -1.0] {
            let apex = Shape::ellipsoid([side * 76.0, 12.0, 35.0], [84.0, 118.0, 158.0]);
            let floor = Shape::HalfSpace { normal: [0.0, 0.0, -1.0], offset: 72.0 };
            let lung = apex.clipped(
                vec![Shape::Cavity { inset_mm: 3.0 }, floor],
                vec![mediastinum.clone(), Self::dome(side, 3.0)],
            );
            let upper = if side > 0.0 { 10 } else { 12 };
            self.scene.add(lung, tissue(density).variation(22.0).gradient(0.35).label(upper));
        }
        // Oblique fissures run from superior-posterior to inferior-anterior, the horizontal fissure is anterior on the right.
        self.split_lobe([0.0, -0.76, 0.65], 8.0, 10, 11);
        self.split_lobe([0.0, -0.76, 0.65], 2.0, 12, 14);
        self.split_lobe([0.0, 0.1, 1.0], 52.0, 12, 13);
        for side in [1.0, -1.0] {
            let hilum: Point = [side * 36.0, 14.0, 66.0];
            let mut tree = Vec::new();
            let directions = [
                [26.0, -6.0, 30.0],
                [30.0, 10.0, -26.0],
                [28.0, -24.0, 4.0],
                [22.0, 24.0, 12.0],
                [24.0, -14.0, -22.0],
                [14.0, 20.0, -34.0],
                [12.0, -10.0, 38.0],
            ];
            for (i, [x, y, z]) in directions.into_iter().enumerate() {
                let rule = BranchingRule { bifurcations: 5, length_ratio: 0.84, radius_ratio: 0.74, spread: 0.55 };
                grow_tree(&mut self.random, hilum, [side * x, y, z], 5.2 - 0.3 * i as f32, rule, &mut tree);
            }
            for tube in tree {
                self.scene.add(tube, tissue(self.hu.lung_vessel).within_labels(LOBES[0], LOBES[1]));
            }
        }
    }

    /// Adds the diaphragm between lungs and abdomen.
    pub(super) fn diaphragm(&mut self) {
        let inside = Shape::Cavity { inset_mm: 1.0 };
        for side in [1.0, -1.0] {
            let high = Shape::HalfSpace { normal: [0.0, 0.0, -1.0], offset: 70.0 };
            let muscle = Self::dome(side, 3.0).clipped(vec![inside.clone(), high], vec![Self::dome(side, 0.0)]);
            self.scene.add(muscle, tissue(50.0).label(0));
        }
    }

    /// Adds heart, great vessels, trachea and esophagus.
    pub(super) fn mediastinum(&mut self) {
        let hu = self.hu;
        let heart_size = self.vary(0.06);
        let heart = |offset_mm: f32| {
            let ventricles = Shape::rotated([26.0, -30.0, 22.0], [56.0 * heart_size, 42.0, 44.0], [0.0, 0.3, 0.5]);
            let atria = Shape::ellipsoid([-8.0, 0.0, 38.0], [40.0, 36.0, 36.0]);
            Shape::union(vec![ventricles, atria], 12.0).offset(offset_mm)
        };
        let above = |z: f32| Shape::HalfSpace { normal: [0.0, 0.0, -1.0], offset: -z };
        self.scene.add(
            heart(7.0).clipped(vec![Shape::Cavity { inset_mm: 4.0 }], vec![]),
            tissue(-92.0).variation(15.0).roughness(2.0).label(0),
        );
        self.scene.add(
            heart(0.0).clipped(vec![Shape::Cavity { inset_mm: 8.0 }, above(-24.0)], vec![]),
            tissue(hu.myocardium).label(51),
        );
        let chambers = [
            ([42.0, -36.0, 14.0], [24.0, 17.0, 20.0], hu.artery),
            ([4.0, -44.0, 18.0], [26.0, 14.0, 22.0], 0.5 * (hu.vein + hu.lung_vessel)),
            ([-22.0, -10.0, 32.0], [17.0, 18.0, 22.0], hu.vein),
            ([10.0, 12.0, 44.0], [26.0, 15.0, 17.0], 0.5 * (hu.artery + hu.lung_vessel)),
        ];
        for (center, radii, blood) in chambers {
            self.scene.add(Shape::rotated(center, radii, [0.0, 0.2, 0.4]), tissue(blood).roughness(1.5).label(51));
        }
        let pulmonary = [
            ([8.0, -30.0, 58.0], 13.0),
            ([12.0, -8.0, 76.0], 12.0),
            ([-14.0, 8.0, 76.0], 10.0),
            ([-40.0, 14.0, 70.0], 7.0),
        ];
        self.scene.add(Shape::chain(&pulmonary), tissue(hu.lung_vessel));
        let left = [([12.0, -8.0, 76.0], 11.0), ([38.0, 16.0, 74.0], 7.5)];
        self.scene.add(Shape::chain(&left), tissue(hu.lung_vessel));
        let arch = [
            ([-2.0, -24.0, 46.0], 14.0),
            ([-14.0, -20.0, 84.0], 14.0),
            ([-6.0, -8.0, 106.0], 13.0),
            ([10.0, 14.0, 112.0], 12.5),
            ([19.0, 36.0, 96.0], 12.0),
            ([20.0, 42.0, 60.0], 11.5),
            ([16.0, 40.0, 0.0], 11.0),
            ([7.0, 34.0, -60.0], 10.5),
        ];
        self.scene.add(Shape::chain(&arch), tissue(hu.artery).label(52));
        for (x, y, top) in [(-16.0, -14.0, 170.0), (4.0, -4.0, 190.0), (16.0, 6.0, 190.0)] {
            let branch = [([0.6 * x, y, 112.0], 5.0), ([1.4 * x, y, top], 4.0)];
            self.scene.add(Shape::chain(&branch), tissue(hu.artery));
        }
        let cava = [([-26.0, -8.0, 40.0], 9.5), ([-27.0, -14.0, 90.0], 8.5), ([-30.0, -16.0, 150.0], 7.0)];
        self.scene.add(Shape::chain(&cava), tissue(hu.vein).label(62));
        self.scene.add(
            Shape::chain(&[([4.0, 26.0, 180.0], 7.5), ([8.0, 30.0, 40.0], 8.0), ([22.0, 18.0, -28.0], 8.0)]),
            tissue(38.0).label(15),
        );
        let airway = [
            vec![([0.0, 6.0, 230.0], 8.5), ([-2.0, 16.0, 92.0], 8.5)],
            vec![([-2.0, 16.0, 94.0], 7.0), ([-40.0, 16.0, 62.0], 5.0), ([-58.0, 24.0, 40.0], 3.2)],
            vec![([-2.0, 16.0, 94.0], 6.5), ([40.0, 18.0, 62.0], 4.6), ([58.0, 28.0, 38.0], 3.0)],
        ];
        for part in &airway {
            let walls: Vec<(Point, f32)> = part.iter().map(|(p, r)| (*p, r + 1.6)).collect();
            self.scene.add(Shape::chain(&walls), tissue(20.0));
        }
        for part in &airway {
            self.scene.add(Shape::chain(part), tissue(-990.0).label(16));
        }
    }
}
