"""Growth to its end: images join ring by ring, and whenever much has changed all are adjusted."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import adjust_views, triangulate_views
from acezero_gpu.reconstruction.growth import grow
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement, Refiner
from acezero_gpu.reconstruction.matching import partner_pairs
from acezero_gpu.reconstruction.resection import PointMap


def grown_out(refiner: Refiner, refined: JointRefinement) -> JointRefinement:
    """With all images that can be placed; by points without parallax when nothing else helps.

    All registered images are adjusted, quickly, whenever many of them are new or matched anew; if few are, they and
    their neighbours. ``views`` and ``joint`` of the result are of the last time that all were.
    """
    growth = _Growth(refiner, refined)
    last_resort = False
    for _ in range(refiner.config.growth.rounds):
        if growth.joined(every_point=last_resort):
            last_resort = False
        elif growth.deepened():
            continue
        elif last_resort:
            break
        else:
            last_resort = True
    return replace(growth.refined, state=growth.state)


class _Growth:
    """Registered images and their points between two adjustments of all."""

    def __init__(self, refiner: Refiner, refined: JointRefinement) -> None:
        self._refiner = refiner
        self._graph = partner_pairs(
            refiner.bank, torch.ones(len(refiner.bank), dtype=torch.bool), refiner.config.partners
        )
        self._stand_on(refined)

    def _stand_on(self, refined: JointRefinement) -> None:
        """Go on from an adjustment of all."""
        bank, views = self._refiner.bank, refined.views
        self.refined, self.state = refined, refined.state
        self._changed = torch.zeros(len(bank), dtype=torch.bool)
        self._placed = torch.zeros_like(self._changed)
        self._placed[views.cpu()] = ((refined.part == 0) & refined.state.registered[views]).cpu()
        self._points = PointMap.of(refined.joint, views, len(bank), bank.config.keypoints.per_image)

    def joined(self, *, every_point: bool) -> bool:
        """Whether unregistered images could be placed, and agreed with the others where all were adjusted.

        ``every_point``: also by points without parallax.
        """
        before = int(self.state.registered.sum())
        if before == len(self.state.registered) or len(self._points.points) == 0:
            return False
        refiner = self._refiner
        state, points = grow(
            refiner.bank,
            refiner.matches,
            self._graph,
            self.state,
            self._placed,
            self._with_every_point() if every_point else self._points,
            refiner.config.growth,
            refiner.quick,
            refiner.generator,
            every_point=every_point,
        )
        new = (state.registered & ~self.state.registered).cpu()
        if not bool(new.any()):
            return False
        self.state, self._points = state, points
        self._placed |= new
        self._adjust(new)
        return int(self.state.registered.sum()) > before

    def deepened(self) -> bool:
        """Whether more keypoints could be matched around images that could not be placed.

        Between these images, between them and their placed neighbours, and between these neighbours: the new
        matches with a neighbour help only if it sees new points too.
        """
        border = self._border()
        if not bool((border & self.state.registered.cpu()).any()):
            return False
        pairs = self._graph[border[self._graph].all(-1)]
        if not self._refiner.matches.deepen(pairs):
            return False
        self._adjust(border & self._placed)
        return True

    def _adjust(self, images: Bool[Tensor, " n"]) -> None:
        """Adjust what these images, new or matched anew, change: all images, or those around them if they are few."""
        self._changed |= images
        config = self._refiner.config.growth
        share = min(config.changed_share, config.until_adjusted - 1)
        free = self._with_neighbours(images) & self._placed
        around = self._with_neighbours(free) & self._placed
        few = int(self._changed.sum()) < share * int(self.state.registered.sum())
        # Without images that stay where they are nothing would hold the others in place.
        if few and not bool((around == free).all()):
            self._adjust_around(free, around)
        else:
            self._stand_on(self._refiner.adjusted(self.state))

    def _adjust_around(self, free: Bool[Tensor, " n"], around: Bool[Tensor, " n"]) -> None:
        """``free`` images adjusted against those ``around`` them, which stay, by the camera as it is."""
        refiner, bank = self._refiner, self._refiner.bank
        views, pairs = self._between(around)
        fixed = ~free[views.cpu()].to(bank.device)
        if refiner.fixed is not None:
            fixed |= refiner.fixed[views]
        local = adjust_views(
            refiner.matches.between(pairs, views),
            bank.keypoints(views).pixels[views],
            self.state.cam_from_world[views],
            self._points.camera,
            replace(
                refiner.quick, bundle=replace(refiner.quick.bundle, refine_focal=False, refine_radial=False)
            ),
            pixel_scale=bank.pixel_scale,
            radial=self._points.radial,
            fixed_views=fixed,
        )
        moved = ~fixed & (local.observations_per_view >= refiner.config.min_observations)
        poses = self.state.cam_from_world.clone()
        poses[views[moved]] = local.cam_from_world[moved]
        self.state = replace(self.state, cam_from_world=poses)
        self._points = self._points.with_points_of(local, views)

    def _border(self) -> Bool[Tensor, " n"]:
        """Unregistered images and their neighbours in the graph."""
        return self._with_neighbours(~self.state.registered.cpu())

    def _with_neighbours(self, images: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """These images and their neighbours in the graph."""
        found = images.clone()
        found[self._graph[images[self._graph].any(-1)].flatten()] = True
        return found

    def _between(self, images: Bool[Tensor, " n"]) -> tuple[Int[Tensor, " v"], Int[Tensor, "p 2"]]:
        """These images, and the pairs of the graph among them."""
        return images.nonzero()[:, 0].to(self._refiner.bank.device), self._graph[images[self._graph].all(-1)]

    def _with_every_point(self) -> PointMap:
        """Also with points of next to no parallax, of the neighbours of images that are to be placed."""
        refiner, bank = self._refiner, self._refiner.bank
        views, pairs = self._between(self._border() & self._placed)
        if len(pairs) == 0:
            return self._points
        points = triangulate_views(
            refiner.matches.between(pairs, views),
            bank.keypoints(views).pixels[views],
            replace(
                self.refined.joint,
                cam_from_world=self.state.cam_from_world[views],
                camera=self._points.camera,
                radial=self._points.radial,
            ),
            refiner.quick,
            pixel_scale=bank.pixel_scale,
        )
        return self._points.with_points_of(points, views, replacing=False)
