// Bytes that the page carries as text.

/** The bytes of base64 text. */
export function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** The bytes of base64 text that zlib has compressed. */
export async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The text of a data block of the page, without its ends; empty if there is none. The block is removed to free memory. */
export function takeBlock(id) {
  const block = document.getElementById(id);
  const text = block ? block.textContent.trim() : "";
  block?.remove();
  return text;
}
