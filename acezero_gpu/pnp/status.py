"""What became of one problem of a batch: failure is data here, never an exception."""

from enum import IntEnum


class PoseStatus(IntEnum):
    """Outcome of one pose estimate; int64 in tensors, and ``PoseStatus(code).sentence`` explains a code."""

    sentence: str

    OK = 0, "A pose was found and refined."
    TOO_FEW_POINTS = (
        1,
        "Fewer than four usable correspondences: masked, not finite, or the camera is invalid.",
    )
    NO_HYPOTHESIS = 2, "No minimal sample gave a pose: the points are degenerate (equal or collinear)."
    TOO_FEW_INLIERS = 3, "The best pose explains fewer than four correspondences; it is not trustworthy."
    NOT_REFINED = 4, "The normal equations are singular or not finite; the initial pose is returned."
    NOT_CONVERGED = (
        5,
        "The refined pose is no minimum of the cost, or the minimum is not unique: it has no implicit gradient.",
    )
    FOCAL_UNDETERMINED = (
        6,
        "A pose was found, but the points hardly tell the focal length, as those on a plane that faces the camera.",
    )

    def __new__(cls, code: int, sentence: str = "") -> "PoseStatus":
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member
