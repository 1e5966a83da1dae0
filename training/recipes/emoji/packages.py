"""The pinned packages of the recipe: emoji art in six styles, and names."""

from pathlib import Path

from training.data.packages import CACHE, Package, fetch_npm

PACKAGES = {
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by Iconify",
    ),
    "color": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by Iconify",
    ),
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by LobeHub",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google Inc. (Noto Emoji), packed by Iconify",
    ),
    "blob": Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "Google Inc. (Noto Emoji v1), packed by Iconify",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twitter, Inc. and other contributors (Twemoji), packed by Iconify",
    ),
    "names": Package(
        "emojibase-data",
        "17.0.0",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
        "MIT",
        "Miles Johnson (Emojibase)",
    ),
}


def fetch(key: str, cache: Path = CACHE) -> Path:
    """The unpacked folder of PACKAGES[key]. Raises PackageError."""
    return fetch_npm(PACKAGES[key], cache)
