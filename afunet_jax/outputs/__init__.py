"""What becomes of an HDR image: files with its values, pictures for any screen, pictures for HDR screens.

    save           `.hdr` and `.exr`, with the exposure in the header; PNG and JPEG of a tone-mapped picture
    tonemapping    linear light to a picture for an ordinary screen
    display_hdr    linear light to what HDR screens show: PQ in PNG or AVIF, JPEG with a gain map
    colour         luminance, transfer functions, primaries
    png            chunks of PNG files
    marks          how our files are told from photos
"""
