# All container images: `make images`, or docker buildx bake --print. Signing and verifying: docs/operations.md, "Secure".
variable "REGISTRY" {
  default = ""
}
variable "VERSION" {
  default = "0.1.0"
}
variable "REVISION" {
  default = "unknown"
}
variable "CREATED" {
  default = "unknown"
}
variable "SOURCE" {
  default = ""
}
variable "PYTHON" {
  default = "3.11.14-slim-bookworm"
}
# Seconds since the epoch: the time of every file of the image, so that two builds of a commit are equal.
variable "SOURCE_DATE_EPOCH" {
  default = "0"
}
variable "PLATFORMS" {
  default = "linux/amd64,linux/arm64"
}

group "default" {
  targets = ["gateway", "stage-cpu", "stage-gpu"]
}
group "cpu" {
  targets = ["gateway", "stage-cpu"]
}

target "common" {
  context    = "."
  dockerfile = "Dockerfile"
  platforms  = split(",", PLATFORMS)
  attest     = ["type=sbom", "type=provenance,mode=max"]
  args = {
    PYTHON            = PYTHON
    VERSION           = VERSION
    REVISION          = REVISION
    CREATED           = CREATED
    SOURCE            = SOURCE
    URL               = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
}

target "gateway" {
  inherits = ["common"]
  target   = "image-gateway"
  args     = { PROCESS = "gateway" }
  tags     = ["${REGISTRY}hart-gateway:${VERSION}"]
}

target "stage-cpu" {
  inherits = ["common"]
  target   = "image-stage"
  args     = { PROCESS = "stage", VARIANT = "cpu" }
  tags     = ["${REGISTRY}hart-stage:${VERSION}-cpu"]
}

target "stage-gpu" {
  inherits = ["common"]
  target   = "image-stage"
  args     = { PROCESS = "stage", VARIANT = "gpu" }
  tags     = ["${REGISTRY}hart-stage:${VERSION}-gpu"]
}
