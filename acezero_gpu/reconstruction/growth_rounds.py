"""Growth to its end: images join ring by ring, and all are adjusted in between."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import triangulate_views
from acezero_gpu.reconstruction.growth import grow
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement, Refiner
from acezero_gpu.reconstruction.matching import partner_pairs
from acezero_gpu.reconstruction.resection import PointMap
from acezero_gpu.reconstruction.state import ReconstructionState


def grown_out(refiner: Refiner, refined: JointRefinement) -> JointRefinement:
    """With all images that can be placed, quickly adjusted; by points without parallax when nothing else helps.

    All are adjusted also for a few new ones. Adjusting these among their neighbours would do where all hang together
    well; but where the last images hang on a turn of the camera, a walk in a circle closes only if all may move.
    """
    graph = partner_pairs(
        refiner.bank, torch.ones(len(refiner.bank), dtype=torch.bool), refiner.config.partners
    )
    last_resort = False
    for _ in range(refiner.config.growth.rounds):
        before = int(refined.state.registered.sum())
        grown = _grown(refiner, refined, graph, every_point=last_resort)
        if int(grown.registered.sum()) > before:
            refined = refiner.adjusted(grown)
        if int(refined.state.registered.sum()) > before:
            last_resort = False
        elif _deepened(refiner, refined.state, graph):
            refined = refiner.adjusted(refined.state)
        elif last_resort:
            break
        else:
            last_resort = True
    return refined


def _grown(
    refiner: Refiner, refined: JointRefinement, graph: Int[Tensor, "p 2"], *, every_point: bool
) -> ReconstructionState:
    """The state with the unregistered images that their keypoints place; the same if there are none.

    ``every_point``: also by points without parallax.
    """
    bank, state, views = refiner.bank, refined.state, refined.views
    if bool(state.registered.all()) or len(refined.joint.points) == 0:
        return state
    placed = torch.zeros(len(bank), dtype=torch.bool)
    placed[views.cpu()] = ((refined.part == 0) & state.registered[views]).cpu()
    points = PointMap.of(refined.joint, views, len(bank), bank.config.keypoints.per_image)
    if every_point:
        points = _every_point(refiner, refined, graph, placed).with_points_of(refined.joint, views)
    return grow(
        bank,
        refiner.matches,
        graph,
        state,
        placed,
        points,
        refiner.config.growth,
        refiner.quick,
        refiner.generator,
        every_point=every_point,
    )


def _every_point(
    refiner: Refiner, refined: JointRefinement, graph: Int[Tensor, "p 2"], placed: Bool[Tensor, " n"]
) -> PointMap:
    """Points with or without parallax that placed neighbours of images that are to be placed see."""
    bank, state = refiner.bank, refined.state
    border = _border(state, graph)
    pairs = graph[placed[graph].all(-1) & border[graph].any(-1)]
    views = pairs.unique().to(bank.device)
    every = triangulate_views(
        refiner.matches.between(pairs, views),
        bank.keypoints(views).pixels[views],
        replace(refined.joint, cam_from_world=state.cam_from_world[views]),
        refiner.quick,
        pixel_scale=bank.pixel_scale,
    )
    return PointMap.of(every, views, len(bank), bank.config.keypoints.per_image)


def _deepened(refiner: Refiner, state: ReconstructionState, graph: Int[Tensor, "p 2"]) -> bool:
    """Whether more keypoints could be matched around images that could not be placed.

    Between these images, between them and their placed neighbours, and between these neighbours: the new
    matches with a neighbour help only if it sees new points too.
    """
    border = _border(state, graph)
    if not bool((border & state.registered.cpu()).any()):
        return False
    return refiner.matches.deepen(graph[border[graph].all(-1)]) > 0


def _border(state: ReconstructionState, graph: Int[Tensor, "p 2"]) -> Bool[Tensor, " n"]:
    """Unregistered images and their neighbours in the graph."""
    border = ~state.registered.cpu()
    border[graph[border[graph].any(-1)].flatten()] = True
    return border
