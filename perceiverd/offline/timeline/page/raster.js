// Rows of a grid as an image of one pixel a column, which the canvas stretches to the rows' height.

/** An image that is made again only if its size changes. */
export class Raster {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d");
  }

  /** Begin an image of this size; returns its pixels, top row first. */
  begin(width, height) {
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    return this.pixels;
  }

  /** The image is complete. */
  end() {
    this.context.putImageData(this.image, 0, 0);
  }
}

/** For each pixel from `leftS` on, the first and last column of the level that it shows; -1 outside the media. */
export function columnsOf(level, startS, width, leftS, secondsPerPixel, durationS) {
  const first = new Int32Array(width);
  const last = new Int32Array(width);
  for (let x = 0; x < width; x++) {
    const from = leftS + x * secondsPerPixel;
    if (from >= durationS || from + secondsPerPixel < 0 || !level.count) {
      first[x] = last[x] = -1;
      continue;
    }
    const clip = (t) => Math.min(level.count - 1, Math.max(0, Math.floor((t - startS) / level.spanS)));
    first[x] = clip(from);
    last[x] = Math.max(first[x], clip(from + secondsPerPixel * 0.999));
  }
  return { first, last };
}

/** The highest value of a row in the columns of a pixel. */
export function highest(level, row, first, last) {
  const from = row * level.count;
  let most = level.cells[from + first];
  for (let column = first + 1; column <= last; column++) {
    const value = level.cells[from + column];
    if (value > most) most = value;
  }
  return most;
}
