"use strict";
// Points are drawn by a small depth-buffered rasteriser of its own into a plain 2D canvas: no WebGL, so nothing that a
// browser, a driver or a policy can refuse.
(() => {
  const canvas = document.getElementById("view");
  if (!canvas) return;
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const find = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const EDGES = [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]];
  const HELD = "#f28cc0", BACKGROUND = [24, 29, 35], NEAR = 0.05, START = 2.5, MOST_PIXELS = 2.4e6, FADE = 0.35;
  const VIEWS = { aslant: [0.42, 0.56], above: [0, 1.5], side: [0, 0.02] };

  const raw = bytes(scene.points), rgb = bytes(scene.colours);
  const steps = new DataView(raw.buffer), count = raw.length / 6;
  const points = new Float32Array(3 * count);
  for (let i = 0; i < points.length; i++) points[i] = (steps.getUint16(2 * i, true) / 65535 - 0.5) * scene.span;
  const cameras = scene.cameras.map((camera) => ({
    ...camera,
    ...scene.images[camera.image],
    stroke: scene.images[camera.image].by === "keypoints" ? HELD : camera.colour,
    spots: null,
    depth: 0,
  }));

  let yaw, pitch, distance, target, chosen = null, pointSize = 1, cut = true, queued = false;
  const reset = (view) => {
    [yaw, pitch] = VIEWS[view];
    distance = START;
    target = [0, 0, 0];
  };
  reset("aslant");

  const context = canvas.getContext("2d");
  let ratio = 1, image = null, pixels = null, depths = null;
  const resize = () => {
    const width = canvas.clientWidth, height = canvas.clientHeight;
    ratio = Math.min(window.devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / Math.max(1, width * height)));
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    image = context.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(image.data.buffer);
    depths = new Float32Array(pixels.length);
    draw();
  };

  // Rows are right, up and forward of the viewer.
  const axes = () => {
    const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
    return [[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [-sy * cp, -sp, -cy * cp]];
  };
  const dot = (a, x, y, z) => a[0] * x + a[1] * y + a[2] * z;

  const projector = () => {
    const [right, up, forward] = axes();
    const focal = 1.2 * Math.min(canvas.width, 1.25 * canvas.height);
    return (x, y, z) => {
      x -= target[0]; y -= target[1]; z -= target[2];
      const depth = dot(forward, x, y, z) + distance;
      const scale = focal / depth;
      return [canvas.width / 2 + dot(right, x, y, z) * scale, canvas.height / 2 - dot(up, x, y, z) * scale, depth];
    };
  };

  const placeCameras = (project) => {
    for (const camera of cameras) {
      camera.spots = [];
      for (let i = 0; i < 15; i += 3) camera.spots.push(project(...camera.corners.slice(i, i + 3)));
      camera.depth = camera.spots[0][2];
      camera.visible = camera.spots.every((spot) => spot[2] > NEAR);
    }
  };

  // What lies nearer than nearly all cameras hides the rest: a ceiling from above, the near wall of a room.
  const nearest = () => {
    if (!cut || cameras.length === 0) return NEAR;
    const sorted = cameras.map((camera) => camera.depth).sort((a, b) => a - b);
    return Math.max(NEAR, sorted[Math.floor(0.05 * sorted.length)]);
  };

  const drawPoints = () => {
    const width = canvas.width, height = canvas.height;
    const ground = (255 << 24) | (BACKGROUND[2] << 16) | (BACKGROUND[1] << 8) | BACKGROUND[0];
    pixels.fill(ground);
    depths.fill(Infinity);
    const [right, up, forward] = axes(), limit = nearest();
    const focal = 1.2 * Math.min(width, 1.25 * height);
    const size = pointSize * 3.3 * ratio * Math.max(0.6, Math.min(1.6, Math.sqrt(25000 / Math.max(1, count))));
    for (let i = 0; i < count; i++) {
      const x = points[3 * i] - target[0], y = points[3 * i + 1] - target[1], z = points[3 * i + 2] - target[2];
      const depth = forward[0] * x + forward[1] * y + forward[2] * z + distance;
      if (depth < limit) continue;
      const scale = focal / depth;
      const side = Math.max(1, Math.min(9, Math.round(size * START / depth)));
      const left = Math.round(width / 2 + (right[0] * x + right[1] * y + right[2] * z) * scale - side / 2);
      const top = Math.round(height / 2 - (up[0] * x + up[1] * y + up[2] * z) * scale - side / 2);
      if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
      const fade = FADE * Math.max(0, Math.min(1, (depth - distance + 1) / 2.5)), keep = 1 - fade;
      const colour = (255 << 24)
        | ((rgb[3 * i + 2] * keep + BACKGROUND[2] * fade) << 16)
        | ((rgb[3 * i + 1] * keep + BACKGROUND[1] * fade) << 8)
        | (rgb[3 * i] * keep + BACKGROUND[0] * fade);
      for (let row = top; row < top + side; row++) {
        for (let place = row * width + left, end = place + side; place < end; place++) {
          if (depth < depths[place]) { depths[place] = depth; pixels[place] = colour; }
        }
      }
    }
    context.putImageData(image, 0, 0);
  };

  const drawCamera = (camera) => {
    const here = camera === chosen, spots = camera.spots;
    context.strokeStyle = here ? "#ffffff" : camera.stroke;
    context.fillStyle = here ? "#ffffff" : camera.stroke;
    context.lineWidth = ratio * (here ? 2.6 : cameras.length > 150 ? 1 : 1.5);
    context.globalAlpha = here ? 0.45 : 0.2;
    context.beginPath();
    for (const spot of spots.slice(1)) context.lineTo(spot[0], spot[1]);
    context.fill();
    context.globalAlpha = 1;
    context.beginPath();
    for (const [a, b] of EDGES) {
      context.moveTo(spots[a][0], spots[a][1]);
      context.lineTo(spots[b][0], spots[b][1]);
    }
    context.stroke();
  };

  function draw() {
    queued = false;
    placeCameras(projector());
    drawPoints();
    context.lineJoin = context.lineCap = "round";
    const order = cameras.filter((camera) => camera.visible).sort((a, b) => b.depth - a.depth);
    for (const camera of order) if (camera !== chosen) drawCamera(camera);
    if (chosen && chosen.visible) drawCamera(chosen);
  }
  const redraw = () => {
    if (!queued) { queued = true; requestAnimationFrame(draw); }
  };

  // The camera under the pointer: the front one whose picture plane holds it, else the nearest within reach.
  const cameraAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * ratio, y = (event.clientY - box.top) * ratio;
    let best = null, bestDistance = 12 * ratio;
    for (const camera of cameras) {
      if (!camera.visible) continue;
      const plane = camera.spots.slice(1);
      const turns = plane.map((a, i) => {
        const b = plane[(i + 1) % 4];
        return Math.sign((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]));
      });
      const inside = turns.every((turn) => turn === turns[0]);
      const away = inside ? 0 : Math.min(...camera.spots.map((spot) => Math.hypot(spot[0] - x, spot[1] - y)));
      if (away < bestDistance || (away === 0 && bestDistance === 0 && camera.depth < best.depth)) {
        best = camera;
        bestDistance = away;
      }
    }
    return best;
  };

  const card = find("card"), hover = find("hover"), pick = find("pick");
  const unit = find("viewer").dataset.unit || "";
  const choose = (camera) => {
    chosen = camera;
    card.hidden = !camera;
    pick.value = camera ? String(cameras.indexOf(camera)) : "";
    if (camera) {
      if (camera.picture) find("card-picture").src = camera.picture;
      else find("card-picture").removeAttribute("src");
      find("card-name").textContent = camera.name;
      find("card-facts").textContent = camera.by === "keypoints"
        ? "held by keypoints alone" : `confidence ${camera.confidence}${unit}`;
    }
    redraw();
  };
  cameras.forEach((camera, i) => pick.add(new Option(camera.name, String(i))));
  pick.addEventListener("change", () => choose(pick.value === "" ? null : cameras[Number(pick.value)]));
  find("close").addEventListener("click", () => choose(null));
  find("size").addEventListener("input", (event) => { pointSize = Number(event.target.value); redraw(); });
  find("cut").addEventListener("change", (event) => { cut = event.target.checked; redraw(); });
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => { reset(button.dataset.view); redraw(); });
  }

  const turn = (dx, dy) => {
    yaw -= dx;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + dy));
  };
  const move = (dx, dy) => {
    const [right, up] = axes(), step = distance / (1.2 * Math.min(canvas.width, 1.25 * canvas.height));
    for (let i = 0; i < 3; i++) target[i] += (dy * up[i] - dx * right[i]) * step * ratio;
  };
  const zoom = (factor) => { distance = Math.max(0.1, Math.min(12, distance * factor)); };

  const pointers = new Map();
  let travelled = 0;
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
    travelled = 0;
    hover.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) {
      const camera = cameraAt(event), box = canvas.getBoundingClientRect();
      canvas.classList.toggle("over", Boolean(camera));
      hover.hidden = !camera;
      if (camera) {
        const x = event.clientX - box.left, left = x < 0.6 * box.width;
        hover.textContent = camera.name.split(/[\\/]/).pop();
        hover.style.left = left ? `${x + 14}px` : "auto";
        hover.style.right = left ? "auto" : `${box.width - x + 14}px`;
        hover.style.top = `${Math.min(event.clientY - box.top + 14, box.height - 26)}px`;
      }
      return;
    }
    const dx = event.clientX - before[0], dy = event.clientY - before[1];
    travelled += Math.hypot(dx, dy);
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const gap = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      zoom(gap(before) / Math.max(1, gap([event.clientX, event.clientY])));
      move(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 2) move(dx, dy);
    else if (travelled > 3) turn(dx * 0.007, dy * 0.007);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.classList.toggle("turning", travelled > 3);
    redraw();
  });
  const release = (event) => {
    const wasClick = pointers.delete(event.pointerId) && travelled <= 3 && event.type === "pointerup";
    canvas.classList.remove("turning");
    if (wasClick) choose(cameraAt(event));
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { hover.hidden = true; });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  // The page scrolls over the view unless it was asked to zoom.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.0025));
    redraw();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => turn(0.1, 0), ArrowRight: () => turn(-0.1, 0),
      ArrowUp: () => turn(0, 0.1), ArrowDown: () => turn(0, -0.1),
      "+": () => zoom(0.87), "-": () => zoom(1.15), Escape: () => choose(null),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    redraw();
  });
  new ResizeObserver(resize).observe(canvas);
})();
