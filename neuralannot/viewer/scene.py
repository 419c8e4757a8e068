"""What was decided, as viser shows it: nodes made, changed and removed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.viewer.content import Content
from neuralannot.viewer.planes import Eye
from neuralannot.viewer.things import Dots, Floor, Mesh, Plane, Strokes

if TYPE_CHECKING:
    import viser

__all__ = ["Scene", "coloured_glb"]


class Scene:
    """The scene of a server. What is shown again under its name is changed in place."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._nodes: dict[str, Any] = {}
        self._shown: dict[str, Any] = {}
        self._up: np.ndarray | None = None
        self._eye: Eye | None = None
        self._aspects: dict[int, float] = {}  # of each window, as it was when it was last fitted
        server.scene.configure_default_lights(cast_shadow=False)

    def show(self, content: Content, *, move_eye: bool) -> None:
        """Show this and nothing else. `move_eye`: look from where it is decided, in every window."""
        left = set(self._nodes)
        with self._server.atomic():
            if self._up is None or not np.array_equal(self._up, content.up):
                self._server.scene.set_up_direction(content.up)
                self._up = content.up
            if content.floor is not None:
                left.discard(self._floor(content.floor))
            for group in content.groups:
                lead = f"/{group.name}"
                left.discard(self._frame(lead, group.placed.R, group.placed.t))
                for mesh in group.meshes:
                    left.discard(self._mesh(f"{lead}/{mesh.name}", mesh))
                for dots in group.dots:
                    left.discard(self._dots(f"{lead}/{dots.name}", dots))
                for strokes in group.strokes:
                    left.discard(self._strokes(f"{lead}/{strokes.name}_lines", strokes))
                for plane in group.planes:
                    left.difference_update(self._plane(f"{lead}/{plane.name}", plane))
                for k, (text, place) in enumerate(group.texts):
                    left.discard(self._text(f"{lead}/text{k}", text, place))
            for name in left:
                self._remove(name)
            self._eye = content.eye
            if move_eye:
                for client in self._server.get_clients().values():
                    self.look(client)

    def look(self, client: viser.ClientHandle) -> None:
        """Move a window's camera to where it was decided to look from."""
        eye = self._eye
        if eye is None:
            return
        camera = client.camera
        with client.atomic():
            camera.up_direction = eye.up
            camera.position = eye.position
            camera.look_at = eye.target
            camera.fov = eye.fov(camera.aspect)
            camera.near = eye.near
            camera.far = eye.far
        self._aspects[client.client_id] = camera.aspect

    def enter(self, client: viser.ClientHandle) -> None:
        """A window that was opened: it looks from where the others do, and goes on seeing as much."""
        self.look(client)
        client.camera.on_update(lambda camera: self._fit(client, camera))

    def leave(self, client: viser.ClientHandle) -> None:
        """A window that was closed."""
        self._aspects.pop(client.client_id, None)

    def _fit(self, client: viser.ClientHandle, camera: viser.CameraHandle) -> None:
        """Where a window has changed its form, it sees what it was to see."""
        before, eye = self._aspects.get(client.client_id), self._eye
        if eye is None or before is None or abs(camera.aspect / before - 1) < 0.01:
            return
        self._aspects[client.client_id] = camera.aspect
        camera.fov = eye.fov(camera.aspect)

    # --- nodes

    def _remove(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        self._shown.pop(name, None)
        if node is not None:
            node.remove()

    def _made(self, name: str, node: Any, shown: Any = None) -> str:
        self._nodes[name], self._shown[name] = node, shown
        return name

    def _frame(self, name: str, R: np.ndarray, t: np.ndarray) -> str:
        wxyz = _wxyz(R)
        if name in self._nodes:
            self._nodes[name].wxyz, self._nodes[name].position = wxyz, t
            return name
        return self._made(name, self._server.scene.add_frame(name, show_axes=False, wxyz=wxyz, position=t))

    def _mesh(self, name: str, mesh: Mesh) -> str:
        plain = mesh.colours.ndim == 1
        before = self._shown.get(name)
        if plain and isinstance(before, Mesh) and before.colours.ndim == 1 and before.faces is mesh.faces:
            node = self._nodes[name]
            if before.vertices is not mesh.vertices:
                node.vertices = mesh.vertices.astype(np.float32)
            node.color, node.opacity = tuple(mesh.colours.tolist()), _opacity(mesh)
            self._shown[name] = mesh
            return name
        self._remove(name)
        if not plain:
            data = coloured_glb(mesh)
            return self._made(name, self._server.scene.add_glb(name, data, cast_shadow=False), mesh)
        node = self._server.scene.add_mesh_simple(
            name,
            mesh.vertices.astype(np.float32),
            mesh.faces,
            color=tuple(mesh.colours.tolist()),
            opacity=_opacity(mesh),
            side="double",
            cast_shadow=False,
            receive_shadow=False,
        )
        return self._made(name, node, mesh)

    def _dots(self, name: str, dots: Dots) -> str:
        self._remove(name)
        if not len(dots.points):
            return name
        # Point clouds have sizes that do not go with the field of view.
        node = self._server.scene.add_batched_meshes_simple(
            name,
            *_ball(),
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (len(dots.points), 1)),
            batched_positions=dots.points.astype(np.float32),
            batched_scales=dots.sizes.astype(np.float32),
            batched_colors=_linear(dots.colours),
            lod="off",
            cast_shadow=False,
            receive_shadow=False,
        )
        return self._made(name, node)

    def _strokes(self, name: str, strokes: Strokes) -> str:
        self._remove(name)
        ends = strokes.ends.astype(np.float32)
        node = self._server.scene.add_line_segments(
            name, ends, _linear(strokes.colours), thickness=strokes.size
        )
        return self._made(name, node)

    def _plane(self, name: str, plane: Plane) -> set[str]:
        shape = plane.frustum
        lines, text, image = f"{name}_lines", f"{name}_text", f"{name}_pixels"
        before = self._shown.get(lines)
        if before is None or not np.array_equal(before, shape.lines):
            self._remove(lines)
            node = self._server.scene.add_line_segments(
                lines, shape.lines, np.array(plane.colour), thickness=1.5, thickness_units="screen"
            )
            self._made(lines, node, shape.lines)
        names = {lines}
        if plane.text:
            place = shape.corners[:2].mean(axis=0)
            names.add(self._text(text, plane.text, place))
        if plane.pixels is not None:
            names.add(self._image(image, plane))
        return names

    def _image(self, name: str, plane: Plane) -> str:
        shape, pixels = plane.frustum, plane.pixels
        assert pixels is not None
        before = self._shown.get(name)
        if before is not None and before.shape == pixels.shape:
            node = self._nodes[name]
            if not np.array_equal(before, pixels):
                node.image = pixels
            node.render_width, node.render_height = shape.width, shape.height
            node.wxyz, node.position = _wxyz(shape.R), shape.centre
            self._shown[name] = pixels
            return name
        self._remove(name)
        node = self._server.scene.add_image(
            name,
            pixels,
            shape.width,
            shape.height,
            format="jpeg",
            jpeg_quality=90,
            cast_shadow=False,
            receive_shadow=False,
            wxyz=_wxyz(shape.R),
            position=shape.centre,
        )
        return self._made(name, node, pixels)

    def _text(self, name: str, text: str, place: np.ndarray) -> str:
        if self._shown.get(name) == text:
            self._nodes[name].position = place
            return name
        self._remove(name)
        node = self._server.scene.add_label(name, text, position=place, anchor="bottom-center")
        return self._made(name, node, text)

    def _floor(self, floor: Floor) -> str:
        name = "/floor"
        shown = (floor.axis, *floor.centre.tolist())
        if self._shown.get(name) == shown:
            return name
        self._remove(name)
        node = self._server.scene.add_grid(
            name,
            width=12,
            height=12,
            plane=("yz", "xz", "xy")[floor.axis],
            cell_size=0.5,
            section_size=1.0,
            cell_color=(225, 225, 225),
            section_color=(190, 190, 190),
            position=floor.centre,
        )
        return self._made(name, node, shown)


@functools.cache
def _ball() -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a ball of radius 1."""
    from trimesh.creation import icosphere

    ball = icosphere(subdivisions=2)
    return ball.vertices.astype(np.float32), np.asarray(ball.faces, np.uint32)


def _opacity(mesh: Mesh) -> float | None:
    return None if mesh.opacity >= 1 else mesh.opacity


def _wxyz(R: np.ndarray) -> np.ndarray:
    return np.roll(Rotation.from_matrix(R).as_quat(), 1)


def _linear(colours: np.ndarray) -> np.ndarray:
    """RGB of screens -> of light, which viser takes colours of single vertices, ends and balls for; uint8."""
    part = colours / 255.0
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    found: np.ndarray = np.rint(255 * light).astype(np.uint8)
    return found


def coloured_glb(mesh: Mesh) -> bytes:
    """A GLB of a mesh with a colour at each vertex, as it lies in the scene; matt, seen from both sides."""
    from trimesh import Scene as Scenery
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import ColorVisuals

    from neuralannot.meshes import to_trimesh

    surface = to_trimesh(mesh.vertices, mesh.faces)
    colours = _linear(np.broadcast_to(mesh.colours, (len(surface.vertices), 3)))
    alpha = np.full((len(colours), 1), round(255 * mesh.opacity), np.uint8)
    surface.visual = ColorVisuals(surface, vertex_colors=np.concatenate([colours, alpha], axis=1))

    def matt(tree: dict[str, Any]) -> None:
        material: dict[str, Any] = {
            "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            "doubleSided": True,
        }
        if mesh.opacity < 1:
            material["alphaMode"] = "BLEND"
        tree["materials"] = [material]
        for part in tree["meshes"]:
            for primitive in part["primitives"]:
                primitive["material"] = 0

    data: bytes = export_glb(Scenery(surface), include_normals=True, tree_postprocessor=matt)
    return data
