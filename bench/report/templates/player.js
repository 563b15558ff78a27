"use strict";
const films = (section, strips) => {
  const { side, frames, given, clips } = Object.fromEntries(
    Object.entries(section.dataset).map(([name, text]) => [name, Number(text)]));
  const sheet = section.querySelector("img");
  const grid = document.createElement("div");
  grid.className = "films";
  for (const strip of strips) {
    const head = document.createElement("span");
    head.textContent = strip;
    grid.append(head);
  }
  const canvases = [];
  for (let clip = 1; clip <= clips; clip++) {
    for (const strip of strips) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = side;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `video ${clip}, ${strip}`);
      canvases.push(canvas);
    }
  }
  grid.append(...canvases);
  section.querySelector("figure").hidden = true;
  section.querySelector(".told").hidden = false;
  section.append(grid);

  const show = (frame) => {
    // A shorter film stays at its last frame.
    const column = Math.min(frame, frames - 1);
    const cell = side + 1;
    section.classList.toggle("at-given", column < given);
    canvases.forEach((canvas, row) => {
      canvas.getContext("2d").drawImage(
        sheet, column * cell + 1, row * cell + 1, side, side, 0, 0, side, side);
    });
  };
  return { frames, given, show };
};

const play = (controls, players) => {
  const [back, forth] = controls.querySelectorAll("[data-step]");
  const button = controls.querySelector("[data-play]");
  const slider = controls.querySelector("input");
  const speed = controls.querySelector("select");
  const output = controls.querySelector("output");
  const last = Math.max(...players.map((player) => player.frames)) - 1;
  // Rows of other models may be given fewer; each row says so itself.
  const given = Math.max(...players.map((player) => player.given));
  let timer = null;

  const show = (frame) => {
    const text = `${frame} of ${last}, ${frame < given ? "given" : "predicted"}`;
    slider.value = frame;
    slider.setAttribute("aria-valuetext", text);
    output.textContent = text;
    for (const player of players) player.show(frame);
  };
  const step = (by) => show((Number(slider.value) + by + last + 1) % (last + 1));
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const start = () => {
    clearInterval(timer);
    timer = setInterval(step, 1000 / Number(speed.value), 1);
    button.textContent = "Pause";
  };

  button.addEventListener("click", () => (timer === null ? start() : stop()));
  for (const each of [back, forth]) {
    each.addEventListener("click", () => {
      stop();
      step(Number(each.dataset.step));
    });
  }
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  speed.addEventListener("change", () => timer !== null && start());

  const lively = matchMedia("(prefers-reduced-motion: no-preference)");
  lively.addEventListener("change", () => lively.matches || stop());
  slider.max = last;
  controls.hidden = false;
  show(given);
  if (lively.matches) start();
};

// Where a sheet cannot be read, all stay images.
const sheets = [...document.querySelectorAll(".player img")];
Promise.all(sheets.map((sheet) => sheet.decode())).then(() => {
  const sections = [...document.querySelectorAll(".player")];
  const strips = {{ strips|list|tojson }};
  play(document.querySelector(".playing"), sections.map((section) => films(section, strips)));
});
