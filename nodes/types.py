"""The types of our own that travel along links."""

from comfy_api.latest import io

StateType = io.Custom("STEPWISE_STATE")
GuidanceType = io.Custom("STEPWISE_GUIDANCE")
PredictionType = io.Custom("STEPWISE_PREDICTION")
