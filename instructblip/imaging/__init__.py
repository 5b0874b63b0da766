"""What stands between a picture's file and its pixels: metadata, containers, depth and colours."""
